"""Tokens that are made from keys."""

import pytest

from runnerlib.contract.identity import RunnerIdentity, RunnerKeys, name_in, run_token_of

OLD, NEW = "old-" * 10, "new-" * 10


@pytest.mark.parametrize("name", ["text", "a b", "läufer", "50%", "a.b.c", "x" * 100])
def test_runners_token_carries_its_name(name: str) -> None:
    keys = RunnerKeys([NEW])
    token = keys.runner_token(name)
    assert token.isascii() and " " not in token
    assert name_in(token) == name
    runner = keys.runner_of(token)
    assert runner is not None and runner.name == name


def test_no_other_text_is_a_runners_token() -> None:
    keys = RunnerKeys([NEW])
    token = keys.runner_token("text")
    code = token.rpartition(".")[2]
    others = ["", "ppr_", "ppr_.", f"ppr_.{code}", f"ppr_nlp.{code}", f"ppr_te%78t.{code}", token + "x", token[:-1]]
    others += [keys.service_token(), run_token_of(token), RunnerKeys([OLD]).runner_token("text"), token.upper(), code]
    assert [each for each in others if keys.runner_of(each) is not None] == []
    assert [each for each in [*others, token] if keys.is_service(each)] == [keys.service_token()]


def test_first_key_makes_tokens_and_all_recognise_them() -> None:
    both = RunnerKeys([NEW, OLD])
    assert both.runner_token("text") == RunnerKeys([NEW]).runner_token("text")
    for keys in (RunnerKeys([OLD]), RunnerKeys([NEW])):
        token = keys.runner_token("text")
        runner = both.runner_of(token)
        assert runner is not None
        assert both.run_token(runner) == run_token_of(token) == keys.run_token(runner)
        assert both.is_service(keys.service_token())
    assert RunnerKeys([NEW]).run_token(RunnerIdentity("text", "unknown")) is None


@pytest.mark.parametrize("text", ["short", f"{NEW},short", NEW.replace("-", "é")])
def test_keys_that_could_be_guessed_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="32 ASCII characters"):
        RunnerKeys.read(text)


def test_keys_are_read_with_commas_or_lines_between_them() -> None:
    assert RunnerKeys.read(f"{NEW},{OLD}").runner_of(RunnerKeys([OLD]).runner_token("a"))
    assert RunnerKeys.read(f"{NEW}\n{OLD}\n").runner_of(RunnerKeys([OLD]).runner_token("a"))
