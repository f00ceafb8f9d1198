"""What several verbs take: the types of their options, which name no module that loads PyTorch."""

from inspect import getdoc
from typing import Annotated, Any, Literal, Union

from tyro.conf import arg, subcommand

from alexnet.train.recipes import OPTIONS, RECIPES, Recipe

#: A store to read: its folder or its address.
Data = Annotated[str, arg(metavar="STORE")]
DataIfAny = Annotated[str | None, arg(metavar="STORE")]
#: As in `alexnet.engines`.
Engine = Literal["auto", "openvino", "onnxruntime", "torch"]


for _field, _option in OPTIONS.items():  # `from` is a word of Python's own
    Recipe.__annotations__[_field] = Annotated[Recipe.__annotations__[_field], arg(name=_option)]


def for_each_recipe(command: Any, **values: Any) -> Any:
    """One subcommand for each recipe, with that recipe's values as defaults."""
    return Union[  # noqa: UP007 - built from a table
        tuple(
            Annotated[command, subcommand(name, default=command(recipe=make(), **values), description=getdoc(make))]
            for name, make in RECIPES.items()
        )
    ]
