"""Other packages' names for what this one does, so that a script is ported by its import.

``sharpen.text.compat.textgrad``, ``.trace`` and ``.dspy``: thin, each name leads to the same
recorder, propagators, optimizers and prompt search. ``docs/text/porting.md`` lists what differs.
"""
