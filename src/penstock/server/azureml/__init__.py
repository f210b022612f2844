"""What Azure Machine Learning's model images and managed endpoints expect of a server."""
