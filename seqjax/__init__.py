"""Visual sequence models in JAX.

Floors, each importing only those below it:

- ``seqjax.ops``: pure functions of arrays and explicit parameters;
- ``seqjax.nn``: parameter holders (flax.nnx) that several systems use;
- ``seqjax.models``: one file per published system;
- ``seqjax.data``, ``seqjax.metrics``, ``seqjax.train``: data sets, measures and the training loop;
- ``experiments``: one recipe per system, run with ``python -m experiments.<family>.<system>``.

Alphabet of every shape: ``B`` batch, ``T`` time, ``H W`` space, ``C`` channels, ``D`` features, ``N`` heads,
``L`` tokens, ``K`` classes, ``*B`` any leading dimensions. At the borders a video is ``[B, T, H, W, C]`` and an
image ``[B, H, W, C]``; inside a scan ``T`` leads. One step is ``x_t``, ``h_tm1``; a sequence is ``xs``, ``hs``.
"""
