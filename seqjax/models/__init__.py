"""Published systems, one file each, in family folders."""
