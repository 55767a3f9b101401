"""What differs between the supported versions of flax, in one place; nothing else is version-dependent."""

from flax import nnx

# A list of modules: plain before flax 0.12, wrapped since.
List = getattr(nnx, "List", list)

# Variables to the arrays that they hold: renamed in flax 0.12.
pure = getattr(nnx, "as_pure", None) or nnx.pure
