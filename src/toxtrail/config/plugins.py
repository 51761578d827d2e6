"""Plug-ins: scorer kinds and generation engines of other distributions, found by entry points.

A plug-in is imported only if params.yaml names it. Its pin there, the hash of its code, is part of
the identity of what it produces.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, cast

from pydantic import ConfigDict, ModelWrapValidatorHandler, model_validator

from toxtrail import __version__
from toxtrail.config.sections import ConfigSection, Key, Sha256
from toxtrail.errors import ConfigError, did_you_mean
from toxtrail.provenance.identity import hash_tree, tree_sha256
from toxtrail.regular_files import below, is_file

SCORERS = "toxtrail.scorers"
BACKENDS = "toxtrail.backends"
PLUGIN_BACKEND = "plug-in"
"""First word of `backend` in the environment of rows that a plug-in generated."""
BYTECODE = "__pycache__"

Options = TypeVar("Options", bound=ConfigSection)


class PluginPin(ConfigSection):
    """Distribution and code of a plug-in."""

    distribution: str
    version: str
    sha256: Sha256
    """SHA-256 over the files of its package. See package_sha256."""

    @property
    def label(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {self.version}"


class Plugin(NamedTuple):
    """An installed plug-in."""

    name: str
    """Its kind in params.yaml."""
    distribution: str
    version: str
    entry: EntryPoint

    @property
    def label(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {self.version}"

    def pin(self) -> PluginPin:
        """Hash its code."""
        return PluginPin(
            distribution=self.distribution,
            version=self.version,
            sha256=package_sha256(self.entry.module.partition(".")[0], self.label),
        )

    def load_options(self, base: type[Options]) -> type[Options]:
        """Import the class of its options.

        Raises:
            ConfigError: it cannot be imported, or is not derived from `base`.
        """
        with _import_errors(self.name, self.label):
            options = self.entry.load()
        if not (isinstance(options, type) and issubclass(options, base)):
            raise ConfigError(
                f'The plug-in "{self.name}" of {self.label}: {self.entry.value} must be a class '
                f"derived from {base.__module__}.{base.__qualname__}."
            )
        return options


class EngineConfig(ConfigSection):
    """Base class of the options of a plug-in that generates, in generation.engine."""

    module: ClassVar[str]
    """Module that generates: see `toxtrail.backends.protocols.EngineModule`."""

    kind: Key
    plugin: PluginPin | None = None
    """Distribution and code; `toxtrail pin` writes it."""

    def code(self) -> ModuleType:
        """Import its module."""
        return import_code(self.module, self.kind, self.plugin)

    @classmethod
    def class_for(cls, values: object) -> type[Self]:
        """Return the class of the plug-in of the values' kind; this one if they have none.

        Raises:
            ConfigError: it cannot be imported, or there is none and the values have no pin.
        """
        if cls is not EngineConfig or not isinstance(values, dict):
            return cls
        kind, is_pinned = values.get("kind"), isinstance(values.get("plugin"), dict)
        return cast(type[Self], engine_class(kind, is_pinned)) if isinstance(kind, str) else cls

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        kind = cls.class_for(values)
        return handler(values) if kind is cls else kind.model_validate(values)


class MissingEngineConfig(EngineConfig):
    """Engine of a pinned plug-in that is not installed: its results can be read, and it cannot
    generate."""

    model_config = ConfigDict(extra="allow")


def engine_class(kind: str, pinned: bool) -> type[EngineConfig]:
    """Return the class of an engine's options. See EngineConfig.class_for."""
    if plugin := plugin_named(BACKENDS, kind):
        return plugin.load_options(EngineConfig)
    if pinned:
        return MissingEngineConfig
    names = [plugin.name for plugin in installed_plugins(BACKENDS)]
    raise ConfigError(
        f'generation.engine.kind: no plug-in provides "{kind}".{did_you_mean(kind, names)} '
        "`toxtrail doctor` lists the installed plug-ins."
    )


def installed_plugins(group: str) -> tuple[Plugin, ...]:
    """Return the installed plug-ins of a group, without importing them."""
    return _installed(group, tuple(sys.path))


@cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[Plugin, ...]:
    plugins = [
        Plugin(entry.name, entry.dist.name, entry.dist.version, entry)
        for entry in entry_points(group=group)
        if entry.dist is not None
    ]
    return tuple(sorted(plugins, key=lambda plugin: (plugin.name, plugin.distribution)))


def plugin_named(group: str, name: str) -> Plugin | None:
    """Return the installed plug-in of a name; None if there is none.

    Raises:
        ConfigError: there are several.
    """
    plugins = [plugin for plugin in installed_plugins(group) if plugin.name == name]
    if len(plugins) > 1:
        raise ConfigError(_collision(name, [plugin.label for plugin in plugins]))
    return plugins[0] if plugins else None


def collisions(group: str, built_in: Sequence[str]) -> list[str]:
    """Return one sentence for each name that several plug-ins, or toxtrail itself, have."""
    owners: dict[str, list[str]] = {name: [f"toxtrail {__version__}"] for name in built_in}
    for plugin in installed_plugins(group):
        owners.setdefault(plugin.name, []).append(plugin.label)
    return [_collision(name, labels) for name, labels in owners.items() if len(labels) > 1]


def usage_problem(place: str, group: str, kind: str, options: object) -> str | None:
    """Return why an entry of params.yaml cannot be used with the installed plug-ins; None if it
    can.

    Args:
        place: key path of the entry.
        options: the entry; if it is not a plug-in's, its kind is one of toxtrail itself.

    Raises:
        ConfigError: several plug-ins have its name.
    """
    plugin = plugin_named(group, kind)
    if not hasattr(options, "plugin"):
        labels = [f"toxtrail {__version__}", plugin.label] if plugin else []
        return f"{place}: {_collision(kind, labels)}" if labels else None
    pin: PluginPin | None = options.plugin
    if plugin is None:
        label = pin.label if pin else f'"{kind}"'
        return f"{place}: the plug-in {label} is not installed. Install it."
    if pin is None:
        return f"{place}.plugin: the code of {plugin.label} has no pin. Run `toxtrail pin`."
    if pin != (present := plugin.pin()):
        return (
            f"{place}.plugin: the pinned plug-in is {pin.label} (sha256 {pin.sha256}), the "
            f"installed one {present.label} (sha256 {present.sha256}). Install the pinned one, or "
            "run `toxtrail pin` to accept the installed one, which makes its results outdated."
        )
    return None


def import_code(module: str, kind: str, pin: PluginPin | None) -> ModuleType:
    """Import a module of a plug-in.

    Raises:
        ConfigError: it cannot be imported.
    """
    with _import_errors(kind, pin.label if pin else "a distribution without a pin"):
        return import_module(module)


@contextmanager
def _import_errors(name: str, label: str) -> Iterator[None]:
    """Name the distribution in any error of a plug-in's import."""
    try:
        yield
    except Exception as error:
        raise ConfigError(
            f'The plug-in "{name}" of {label} cannot be imported ({type(error).__name__}: '
            f"{error}). Install it again, or remove it from params.yaml."
        ) from error


def package_sha256(package: str, label: str) -> str:
    """Return the SHA-256 of the canonical JSON of {name: sha256} of a package's files, which does
    not depend on where it is installed; files in __pycache__ do not count.

    Args:
        package: name at the top level.
        label: of its distribution, for messages.

    Raises:
        ConfigError: it is not one folder, or contains links to folders.
    """
    spec = find_spec(package)
    folders = list((spec and spec.submodule_search_locations) or ())
    if spec is None or len(folders) > 1 or not (folders or spec.has_location):
        raise ConfigError(f"The code of {label}, {package}, is not one installed folder or file.")
    origin = Path(folders[0] if folders else str(spec.origin))
    paths = [path for path in below(origin) if BYTECODE not in path.relative_to(origin).parts]
    if links := [path for path in paths if path.is_symlink() and path.is_dir()]:
        raise ConfigError(f"The code of {label} has a link to a folder: {links[0]}. Replace it.")
    files = [path for path in paths if is_file(path)] if folders else [origin]
    return tree_sha256(hash_tree(origin.parent, files))


def _collision(name: str, labels: list[str]) -> str:
    return f'{" and ".join(labels)} both provide "{name}". Uninstall one of them.'
