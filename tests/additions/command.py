"""`nas greet`: made up by a test, as somebody would add a command."""

from typing import Annotated

import typer


def greet(name: Annotated[str, typer.Argument(help="Whom to greet.")]) -> None:
    """Say hello."""
    print(f"hello {name}")
