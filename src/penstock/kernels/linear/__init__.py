"""The affine map, with its weight packed as the backend likes it."""
