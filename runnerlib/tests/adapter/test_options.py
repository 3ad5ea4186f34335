"""OPTIONS and the environment variables over it."""

import pytest

from runnerlib.adapter.model import Options, ProcessGroup

RUN = "\ndef run_upper(text: str): ...\ndef run_lower(text: str): ...\n"


def options(adapter):
    return adapter.algorithms["upper"].options


def test_every_key_is_taken(adapter_of):
    written = {
        "timeout_seconds": 2,
        "retries": 0,
        "retry_on": ["KeyError"],
        "invalid_payload_on": "ValueError",
        "batch": 8,
        "slots": 2,
        "process": "words",
        "max_tasks_per_process": 100,
        "max_rss_mb": 500,
        "result_bytes": 10,
        "most_waiting": 11,
        "most_running": 12,
        "group_slots": 13,
        "rate_per_second": 0.5,
    }
    adapter = adapter_of(f"OPTIONS = {{'upper': {written!r}}}" + RUN)
    assert options(adapter) == Options(
        2.0, 0, ("builtins.KeyError",), ("builtins.ValueError",), 8, 2, "words", 100, 500, 10, 11, 12, 13, 0.5
    )
    limits = adapter.algorithms["upper"].describe().limits
    assert (limits.most_waiting, limits.most_running, limits.group_slots, limits.rate_per_second) == (11, 12, 13, 0.5)
    assert adapter.algorithms["lower"].options == Options()
    assert adapter.algorithms["upper"].slots == 2


MISTAKES = {
    "not a dict": ("OPTIONS = [1]", "OPTIONS is a list; write a dict keyed by algorithm, e.g. OPTIONS = "),
    "unknown algorithm": (
        "OPTIONS = {'uper': {}}",
        "OPTIONS['uper'] is not an algorithm of this adapter. Did you mean 'upper'? It has upper, lower",
    ),
    "with its prefix": (
        "OPTIONS = {'run_upper': {}}",
        "OPTIONS['run_upper']: algorithms are named without run_; write 'upper'",
    ),
    "a key without an algorithm": (
        "OPTIONS = {'slots': 2}",
        "OPTIONS['slots'] is not an algorithm; options are per algorithm: {'<algorithm>': {'slots': ...}}",
    ),
    "more slots than can be registered": (
        "OPTIONS = {'upper': {'slots': 200000}}",
        "OPTIONS['upper']['slots'] must be a whole number, 1024 at most, not 200000",
    ),
    "more in a batch than can be registered": (
        "OPTIONS = {'upper': {'batch': 5000}}",
        "OPTIONS['upper']['batch'] must be a whole number, 4096 at most, not 5000",
    ),
    "more retries than can be registered": (
        "OPTIONS = {'upper': {'retries': 101}}",
        "OPTIONS['upper']['retries'] must be a whole number, 100 at most, not 101",
    ),
    "more time than can be registered": (
        "OPTIONS = {'upper': {'timeout_seconds': 1e6}}",
        "OPTIONS['upper']['timeout_seconds'] must be a number of seconds, at most 604800 (7 days), not 1000000.0",
    ),
    "a larger result than can be registered": (
        "OPTIONS = {'upper': {'result_bytes': 10**15}}",
        "OPTIONS['upper']['result_bytes'] must be a whole number, 16777216 at most, not 1000000000000000",
    ),
    "no rate": (
        "OPTIONS = {'upper': {'rate_per_second': 0}}",
        "OPTIONS['upper']['rate_per_second'] must be a positive number of tasks a second, at most 1000000, not 0",
    ),
    "a rate that is no number": (
        "OPTIONS = {'upper': {'rate_per_second': float('nan')}}",
        "OPTIONS['upper']['rate_per_second'] must be a positive number of tasks a second",
    ),
    "nobody may run": (
        "OPTIONS = {'upper': {'most_running': 0}}",
        "OPTIONS['upper']['most_running'] must be a whole number, 1 or more, not 0.",
    ),
    "no slots for a group": (
        "OPTIONS = {'upper': {'group_slots': 0}}",
        "OPTIONS['upper']['group_slots'] must be a whole number, 1 or more, not 0.",
    ),
    "a part of a slot for a group": (
        "OPTIONS = {'upper': {'group_slots': 1.5}}",
        "OPTIONS['upper']['group_slots'] must be a whole number, 1 or more, not 1.5.",
    ),
    "more slots for a group than can be registered": (
        "OPTIONS = {'upper': {'group_slots': 10**10}}",
        "OPTIONS['upper']['group_slots'] must be a whole number, 1000000000 at most, not 10000000000",
    ),
    "no dict for an algorithm": ("OPTIONS = {'upper': 3}", "OPTIONS['upper'] is a int; write a dict"),
    "unknown key": (
        "OPTIONS = {'upper': {'timeout': 3}}",
        "OPTIONS['upper']['timeout'] is not an option. Did you mean 'timeout_seconds'? "
        "There are timeout_seconds, retries",
    ),
    "a key that is no text": ("OPTIONS = {'upper': {3: 3}}", "OPTIONS['upper'][3] is not an option."),
    "text for seconds": (
        "OPTIONS = {'upper': {'timeout_seconds': '3'}}",
        "OPTIONS['upper']['timeout_seconds'] must be a positive number of seconds, not '3'.",
    ),
    "no seconds": (
        "OPTIONS = {'upper': {'timeout_seconds': 0}}",
        "OPTIONS['upper']['timeout_seconds'] must be a positive",
    ),
    "endless": (
        "OPTIONS = {'upper': {'timeout_seconds': float('inf')}}",
        "OPTIONS['upper']['timeout_seconds'] must be a positive",
    ),
    "true as a number": (
        "OPTIONS = {'upper': {'retries': True}}",
        "OPTIONS['upper']['retries'] must be a whole number, 0 or more, not True.",
    ),
    "negative": (
        "OPTIONS = {'upper': {'retries': -1}}",
        "OPTIONS['upper']['retries'] must be a whole number, 0 or more, not -1.",
    ),
    "no slots": (
        "OPTIONS = {'upper': {'slots': 0}}",
        "OPTIONS['upper']['slots'] must be a whole number, 1 or more, not 0.",
    ),
    "none where it means nothing": (
        "OPTIONS = {'upper': {'batch': None}}",
        "OPTIONS['upper']['batch'] must be a whole number, 1 or more, not None.",
    ),
    "a process of no name": (
        "OPTIONS = {'upper': {'process': 'Gpu 1'}}",
        "OPTIONS['upper']['process'] must be a name of lower-case letters",
    ),
    "an unknown exception": (
        "OPTIONS = {'upper': {'retry_on': ['ValueErorr']}}",
        "OPTIONS['upper']['retry_on'] must be exception classes or their names, "
        "e.g. [\"ValueError\"], not ['ValueErorr']. Did you mean 'ValueError'",
    ),
    "a class that is no exception": (
        "OPTIONS = {'upper': {'retry_on': [int]}}",
        "OPTIONS['upper']['retry_on'] must be exception classes",
    ),
    "an unknown module": (
        "OPTIONS = {'upper': {'retry_on': ['no_such_module_x.Error']}}",
        "OPTIONS['upper']['retry_on'] must be exception classes",
    ),
    "different loads in one process": (
        "def load_model(): ...\ndef run_z(a: int, *, model): ...\n"
        "OPTIONS = {'upper': {'process': 'words'}, 'z': {'process': 'words'}}",
        "OPTIONS: z, upper cannot share \"process\": 'words', since they load different things "
        "(z needs model; upper needs nothing); let them name the same, or give them processes of their own",
    ),
    "async and not in one process": (
        "async def run_z(a: int): ...\nOPTIONS = {'upper': {'process': 'words'}, 'z': {'process': 'words'}}",
        "OPTIONS: z, upper cannot share \"process\": 'words'; some are async def and some are not",
    ),
    "a process with another algorithm's name": (
        "OPTIONS = {'upper': {'process': 'lower'}}",
        "OPTIONS: \"process\": 'lower' is also the name of an algorithm outside it; choose another name",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_sentence(name, problems_of):
    source, expected = MISTAKES[name]
    (problem,) = problems_of(source + RUN)
    assert problem.startswith(expected)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("['KeyError', TimeoutError]", ("builtins.KeyError", "builtins.TimeoutError")),
        ("'Own'", ("runner_adapter.Own",)),
        ("Own", ("runner_adapter.Own",)),
        ("('json.JSONDecodeError',)", ("json.decoder.JSONDecodeError",)),
        ("[json.JSONDecodeError]", ("json.decoder.JSONDecodeError",)),
        ("['requests.ConnectionError']", ("requests.exceptions.ConnectionError",)),
    ],
)
def test_retry_on_takes_classes_and_names(written, expected, adapter_of):
    adapter = adapter_of(
        f"import json\nclass Own(Exception): ...\nOPTIONS = {{'upper': {{'retry_on': {written}}}}}" + RUN
    )
    assert options(adapter).retry_on == expected


def test_invalid_payload_on_takes_what_retry_on_takes(adapter_of):
    adapter = adapter_of(
        "class Own(Exception): ...\nOPTIONS = {'upper': {'invalid_payload_on': [Own, 'KeyError']}}" + RUN,
        {"OPTION_UPPER_RETRY_ON": "Own"},
    )
    assert options(adapter).invalid_payload_on == ("runner_adapter.Own", "builtins.KeyError")
    assert options(adapter).retry_on == ("runner_adapter.Own",)


def test_environment_variables_override(adapter_of):
    adapter = adapter_of(
        "OPTIONS = {'upper': {'timeout_seconds': 30, 'slots': 3, 'retries': 1, 'group_slots': 5}}" + RUN,
        {
            "OPTION_UPPER_TIMEOUT_SECONDS": "0.5",
            "OPTION_UPPER_SLOTS": "",
            "OPTION_UPPER_RETRY_ON": "KeyError, json.JSONDecodeError",
            "OPTION_UPPER_PROCESS": "words",
            "OPTION_UPPER_MAX_RSS_MB": "100",
            "OPTION_UPPER_MOST_RUNNING": "4",
            "OPTION_UPPER_GROUP_SLOTS": "none",
            "OPTION_SOMEBODY_ELSES_BATCH": "x",
            "PATH": "/bin",
        },
    )
    assert options(adapter) == Options(
        timeout_seconds=0.5,
        retries=1,
        retry_on=("builtins.KeyError", "json.decoder.JSONDecodeError"),
        process="words",
        max_rss_mb=100,
        most_running=4,
    )


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("OPTION_UPPER_BATCH", "many", "OPTION_UPPER_BATCH must be a whole number, 1 or more, not 'many'."),
        ("OPTION_UPPER_BATCH", "0", "OPTION_UPPER_BATCH must be a whole number, 1 or more, not '0'."),
        (
            "OPTION_UPPER_TIMEOUT_SECONDS",
            "nan",
            "OPTION_UPPER_TIMEOUT_SECONDS must be a positive number of seconds, not 'nan'.",
        ),
        ("OPTION_UPPER_RETRY_ON", "Nothing", "OPTION_UPPER_RETRY_ON must be exception classes"),
        (
            "OPTION_UPPER_TIMEOUT",
            "3",
            "OPTION_UPPER_TIMEOUT sets no option of 'upper'. Did you mean 'timeout_seconds'? There are",
        ),
    ],
)
def test_bad_override_names_its_variable(variable, text, expected, problems_of):
    (problem,) = problems_of(RUN, {variable: text})
    assert problem.startswith(expected)


def test_override_of_a_longer_name_is_not_taken_for_a_shorter(adapter_of):
    adapter = adapter_of("def run_a(n: int): ...\ndef run_a_b(n: int): ...", {"OPTION_A_B_BATCH": "3"})
    assert [one.batch_cap for one in adapter.algorithms.values()] == [512, 3]


def test_algorithms_of_one_process_share_a_group(adapter_of):
    adapter = adapter_of(
        """
        def load_model(): ...
        def run_a(n: int, *, model): ...
        def run_b(n: int, *, model): ...
        def run_c(n: int, *, model): ...
        OPTIONS = {
            "a": {"process": "gpu", "slots": 2, "max_tasks_per_process": 10},
            "b": {"process": "gpu", "slots": 1, "max_tasks_per_process": 5, "max_rss_mb": 9},
        }
        """
    )
    assert adapter.process_groups == (
        ProcessGroup("gpu", ("a", "b"), 2, False, 5, 9),
        ProcessGroup("c", ("c",), 1, False),
    )
