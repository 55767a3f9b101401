"""Recurrent parameters of PyTorch, Flax, Keras and Haiku to those of ``seqjax.ops.cells``, and back, exactly.

One module per source, each with ``read_<cell>(weights)`` and ``write_<cell>(params)`` for the cells that it has::

    from seqjax.convert.recurrent import torch
    layers = torch.read_lstm({name: w.numpy() for name, w in module.state_dict().items()})
    module.load_state_dict({name: as_tensor(w) for name, w in torch.write_lstm(layers).items()})

``read`` is differentiable and gives jax arrays, ``write`` gives NumPy arrays in the source's own names and shapes.
PyTorch's module holds all layers and directions at once and is read as a tuple with one entry per layer; the other
sources have one cell at a time. A bidirectional layer is the pair ``(forward, backward)``. What differs:

============= ============= ========== ================ ================================= ==============
source        LSTM gates    GRU gates  GRU resets       biases                            LSTM state
============= ============= ========== ================ ================================= ==============
seqjax        i, f, g, o    r, z, n    either cell      one; GRU: and ``candidate_bias``  ``(h, c)``
PyTorch       i, f, g, o    r, z, n    after            two everywhere                    ``(h, c)``
Flax linen    four apart    six apart  after            one; GRU: and that of ``hn``      ``(c, h)``
Flax nnx      i, f, g, o    r, z, n    after            one                               ``(c, h)``
Keras         i, f, g, o    z, r, n    after or before  one; GRU after: two               ``[h, c]``
Haiku         i, g, f, o    z, r, n    before           one                               ``(h, c)``
============= ============= ========== ================ ================================= ==============

- Two biases of one sum are added when read, and come back as all in the input's and zero in the recurrent one. Only
  the GRU's candidate keeps two: with the reset after the product, the recurrent one stands inside ``r⊙(·)``.
- Haiku's LSTMs and linen's ConvLSTM add 1 to the forget gate themselves: the 1 is in our bias, not in theirs. Adding
  it rounds; a bias of ours between 0.5 and 2 comes back bit by bit.
- Haiku's update gate takes the new state where ours keeps the old one: see ``gates.swap_update``.
- A GRU that resets after the product is another function than one that resets before it, and neither has weights that
  give the other: ``reset`` names the cell that runs the parameters, and a source of the other kind is refused.
- Activations are not part of the weights: the sources' defaults are meant.
"""
