"""Why a registration is refused; each text is a sentence that says what to do."""


class RegistryError(Exception):
    """A request that the registry cannot follow; `code` never changes for the same cause."""

    code = "refused"


class BadRegistration(RegistryError):
    """The registration contradicts itself or names something impossible."""

    code = "invalid_registration"


class TooLarge(RegistryError):
    """A schema is beyond the limit."""

    code = "schema_too_large"


class RegistryFull(RegistryError):
    """More runners or algorithms than one registry holds."""

    code = "registry_full"


class UnknownRunner(RegistryError):
    """No such runner is registered now."""

    code = "unknown_runner"


class OtherBoot(RegistryError):
    """The runner has been started anew since; the registration belongs to the newer process."""

    code = "other_boot"
