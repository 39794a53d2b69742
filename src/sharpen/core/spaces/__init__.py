"""Search spaces from and to the formats of other tools.

::

    ConfigSpace's JSON        from_configspace(data)         to_configspace(space)
    Optuna's distributions    from_optuna(distributions)     to_optuna(space)
    JSON Schema               from_json_schema(schema)       to_json_schema(space)
    annotated dataclasses     from_annotations(cls)          to_annotations(space)

Gymnasium's spaces are in :mod:`sharpen.search.adapters`. What a format cannot say is an error that
names it; :func:`without` drops what does not change which configurations there are.
"""

from sharpen.core.spaces.annotations import from_annotations, to_annotations
from sharpen.core.spaces.configspace import from_configspace, to_configspace
from sharpen.core.spaces.json_schema import from_json_schema, to_json_schema
from sharpen.core.spaces.limits import without
from sharpen.core.spaces.optuna import from_optuna, to_optuna

__all__ = [
    "from_annotations",
    "from_configspace",
    "from_json_schema",
    "from_optuna",
    "to_annotations",
    "to_configspace",
    "to_json_schema",
    "to_optuna",
    "without",
]
