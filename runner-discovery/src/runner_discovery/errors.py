"""Errors of the registry. Each message says what to do."""


class RegistryError(Exception):
    """A request that the registry refuses. `code` is stable for the same cause."""

    code = "refused"


class BadRegistration(RegistryError):
    """The registration contradicts itself, names something impossible, or is beyond a bound."""

    code = "invalid_registration"


class TooLarge(RegistryError):
    """A description is beyond its bounds."""

    code = "schema_too_large"


class RegistryFull(RegistryError):
    """More runners, algorithms or descriptions than one registry holds."""

    code = "registry_full"


class Overloaded(RegistryError):
    """Too many registrations wait to be read."""

    code = "overloaded"


class UnknownRunner(RegistryError):
    """No such runner is registered now."""

    code = "unknown_runner"


class UnknownAlgorithm(RegistryError):
    """No such algorithm was ever registered."""

    code = "unknown_algorithm"


class OtherOwner(RegistryError):
    """The algorithm belongs to a runner that registers itself."""

    code = "other_owner"

    def __init__(self, algorithm: str, owner: str, runner_name: str) -> None:
        who = f"of {runner_name!r}" if runner_name else "without a name"
        super().__init__(
            f"{algorithm!r} belongs to runner {owner!r}, and a registration {who} does not take it from that; "
            "register under another algorithm, or with PUT /runners/{id} under that name"
        )


class OtherName(RegistryError):
    """The token is that of another runner name."""

    code = "other_runner"

    def __init__(self, runner: str, name: str, of_token: str) -> None:
        super().__init__(
            f"runner {runner[:250]!r} is of the name {name!r}, and this is the token of {of_token!r}; set RUNNER_NAME"
        )


class HostNotAllowed(RegistryError):
    """A runner registers a host that is not its own."""

    code = "host_not_allowed"


class LookupPending(RegistryError):
    """What the host's name stands for is not known yet."""

    code = "lookup_pending"

    def __init__(self) -> None:
        super().__init__("what the host's name stands for is still being looked up; send the same again in a moment")


class BootMissing(RegistryError):
    """A removal must name the process by its boot id."""

    code = "boot_missing"

    def __init__(self) -> None:
        super().__init__(
            "say which process leaves: DELETE /runners/{id}?boot=… with the boot id of its registration; "
            "a newer process of the runner may have registered meanwhile"
        )


class OtherBoot(RegistryError):
    """The runner has been restarted; the registration belongs to the newer process."""

    code = "other_boot"
