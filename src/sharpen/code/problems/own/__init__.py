"""Problems of our own, several a file; see :mod:`sharpen.code.problems.files` for the format."""
