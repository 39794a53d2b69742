"""What runs inside a sandbox: the standard library alone, sent there as code, nothing mounted.

Nothing here may import another module of Sharpen than its neighbours in this folder.
"""
