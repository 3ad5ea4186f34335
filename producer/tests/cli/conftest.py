"""Commands, called in this process against a real gateway."""

from typing import Any

import pytest
from typer.testing import CliRunner, Result

from producer.cli import app


@pytest.fixture
def call(gateway: Any) -> Any:
    def call(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, env={"GATEWAY_URL": gateway.url})

    return call
