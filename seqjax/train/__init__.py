"""Training: from a system's networks and objectives to a run that can be watched, stopped and resumed.

Pure step builders over one `State`, the mesh that they run on, the one loop, checkpoints, and what a run
leaves in its work directory. Nothing here knows a model or a data set: a recipe brings both together. Imports
`seqjax.nn` and `seqjax.ops`, never `seqjax.models` or `seqjax.data`.
"""
