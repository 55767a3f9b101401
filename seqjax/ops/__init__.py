"""Pure functions of arrays and explicit parameters: usable from any framework, or from none."""
