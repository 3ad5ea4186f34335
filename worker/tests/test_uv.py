import os
import subprocess
import sys

import pytest

from worker import uv
from worker.uv import read_uv_variables, uv_variables

BEST = {"UV_INDEX_STRATEGY": "unsafe-best-match"}


@pytest.mark.parametrize(
    ("config", "variables"),
    [
        ("", BEST),
        ("global.timeout='60'\n:env:.disable-pip-version-check='1'", BEST),
        ("global.index-url='http://a/simple'", BEST | {"UV_DEFAULT_INDEX": "http://a/simple"}),
        ("global.extra-index-url='\\nhttp://a\\nhttp://b'", BEST | {"UV_INDEX": "http://a http://b"}),
        ("global.find-links='/one /two'", BEST | {"UV_FIND_LINKS": "/one,/two"}),
        ("global.cert='/etc/a b.pem'", BEST | {"SSL_CERT_FILE": "/etc/a b.pem"}),
        (":env:.index-url='e'\nglobal.index-url='g'\ninstall.index-url='i'", BEST | {"UV_DEFAULT_INDEX": "e"}),
        ("freeze.all='1'", BEST),
        ("global.only-binary=':all:'", None),
    ],
)
def test_pips_configuration_is_translated_or_pip_is_used(config: str, variables: dict[str, str] | None) -> None:
    assert uv_variables(config) == variables


def test_the_configuration_of_this_pip_is_read_and_own_variables_of_uv_win() -> None:
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "/wheels", "UV_FIND_LINKS": "/mine"}
    told = read_uv_variables(sys.executable, environment)
    assert told is not None and told["UV_FIND_LINKS"] == "/mine"
    assert read_uv_variables(sys.executable, environment | {"PIP_ONLY_BINARY": ":all:"}) is None
    assert read_uv_variables(sys.executable, {"PIP_CONFIG_FILE": "/does/not/exist", **os.environ}) is not None


def test_a_shell_can_read_the_variables() -> None:
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_CERT": "/a b'c"}
    code = f'eval "$({sys.executable} {uv.__file__})"; printf %s "$SSL_CERT_FILE"'
    assert subprocess.run(["sh", "-c", code], env=environment, capture_output=True, text=True).stdout == "/a b'c"
