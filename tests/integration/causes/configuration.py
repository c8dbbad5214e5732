"""What somebody wrote: files, flags, variables."""

from __future__ import annotations

import os

from tests.integration.failing_node import NOBODY, Cause, Scene


def bad_yaml(scene: Scene) -> None:
    scene.configuration(
        "api:\n  port: 7400\n  listen_address: [127.0.0.1\nnetwork:\n  port: 7401\n"
    )


def tab(scene: Scene) -> None:
    scene.configuration("api:\n\tport: 7400\n")


def indentation(scene: Scene) -> None:
    scene.configuration("api:\n  port: 7400\n   tls: off\n")


def bad_json(scene: Scene) -> None:
    scene.configuration('{"api": {"port": 7400,}}\n', "node.json")


def same_key_twice(scene: Scene) -> None:
    scene.configuration("api:\n  port: 7400\napi:\n  tls: off\n")


def unknown_key(scene: Scene) -> None:
    scene.configuration("api:\n  prot: 7500\n")


def unknown_section(scene: Scene) -> None:
    scene.configuration("databse:\n  path: /x\n")


def wrong_section(scene: Scene) -> None:
    scene.configuration("api:\n  log_level: debug\n")


def wrong_type(scene: Scene) -> None:
    scene.configuration("api:\n  port: eighty\n")


def out_of_range(scene: Scene) -> None:
    scene.configuration("api:\n  port: 70000\n")


def yes_for_a_word(scene: Scene) -> None:
    scene.configuration("api:\n  tls: yes\n")


def missing_space(scene: Scene) -> None:
    scene.configuration("api:\n  port:7400\n")


def size_with_unit(scene: Scene) -> None:
    scene.configuration("cache:\n  max_bytes: 64MB\n  ttl: 5m\n")


def quoted_number(scene: Scene) -> None:
    scene.configuration('api:\n  port: "7400"\n')


def a_list(scene: Scene) -> None:
    scene.configuration("- api\n- network\n")


def seeds_not_a_list(scene: Scene) -> None:
    scene.configuration("network:\n  seeds: node-2:7401\n")


def bad_seed(scene: Scene) -> None:
    scene.configuration("network:\n  seeds: [node-2]\n")


def several(scene: Scene) -> None:
    scene.configuration("api:\n  prot: 7500\n  port: eighty\ncache:\n  ttl: -1\n")
    scene.environment["NOVACRON_DATABASE__READERS"] = "many"


def contradiction(scene: Scene) -> None:
    scene.configuration("network:\n  ping_interval: 90\n")


def unknown_variable(scene: Scene) -> None:
    scene.environment["NOVACRON_API__PROT"] = "7400"


def short_variable(scene: Scene) -> None:
    scene.environment["NOVACRON_API_PORT"] = "7400"


def variables_disagree(scene: Scene) -> None:
    scene.environment |= {"NOVACRON_LOG_LEVEL": "debug", "NOVACRON_SYSTEM__LOG_LEVEL": "info"}


def no_such_file(scene: Scene) -> None:
    scene.arguments += ["--config", str(scene.root / "node.yml")]


def file_is_a_directory(scene: Scene) -> None:
    scene.arguments += ["--config", str(scene.root)]


def file_not_permitted(scene: Scene) -> None:
    path = scene.configuration("api: {port: 0}\n")
    path.chmod(0o600)
    os.chown(path, NOBODY, NOBODY)
    scene.without_privileges()


def latin_file(scene: Scene) -> None:
    (scene.root / "node.yaml").write_bytes("# Größe\napi: {port: 0}\n".encode("latin-1"))
    scene.arguments += ["--config", str(scene.root / "node.yaml")]


def set_unknown(scene: Scene) -> None:
    scene.settings["api.prot"] = "1"


def unknown_component(scene: Scene) -> None:
    scene.settings["boot.criticality.databse"] = "critical"


def unknown_timeout(scene: Scene) -> None:
    scene.settings["boot.start_timeout.databse"] = "5"


def unknown_class(scene: Scene) -> None:
    scene.settings["boot.criticality.database"] = "important"


_INVALID = "the configuration is invalid"
_CORRECT = (
    "correct it and try again; `novacron config check` validates without starting, "
    "`novacron config explain KEY` says what a key takes"
)

CAUSES = (
    *(
        Cause(name, provoke, 78, _INVALID, why, _CORRECT, key)
        for name, provoke, why, key in (
            (
                "YAML with an open bracket",
                bad_yaml,
                "node.yaml:4: YAML: did not find expected ',' or ']'; is a bracket or a quote "
                "above not closed? (line 4, column 8) 4 | network: ^",
                "",
            ),
            (
                "YAML with a tab",
                tab,
                "node.yaml:2: YAML: found character that cannot start any token; indent with "
                "spaces, not tabs",
                "",
            ),
            (
                "YAML that is indented wrongly",
                indentation,
                "node.yaml:3: YAML: mapping values are not allowed in this context; is the line "
                "indented too far, or a text with a colon not in quotes? (line 3, column 7) 3 | "
                "tls: off ^",
                "",
            ),
            (
                "JSON with a comma too many",
                bad_json,
                "node.json:1: JSON: a key in double quotes is expected here; is there a comma "
                "too many before it?",
                "",
            ),
            (
                "a section twice",
                same_key_twice,
                "node.yaml:3: YAML: 'api' is there twice, first in line 1",
                "",
            ),
            (
                "an unknown key",
                unknown_key,
                "node.yaml:2: api.prot: there is no such key; did you mean api.port?",
                "api.prot",
            ),
            (
                "an unknown section",
                unknown_section,
                "node.yaml:1: databse: there is no such key; did you mean database?",
                "databse",
            ),
            (
                "a key in the wrong section",
                wrong_section,
                "node.yaml:2: api.log_level: there is no such key; did you mean system.log_level?",
                "api.log_level",
            ),
            (
                "a wrong type",
                wrong_type,
                'node.yaml:2: api.port: "eighty" is text; accepted: a whole number, at least 0 '
                "and at most 65535",
                "api.port",
            ),
            (
                "a number in quotes",
                quoted_number,
                'node.yaml:2: api.port: "7400" is text, write it without quotes; accepted: a '
                "whole number",
                "api.port",
            ),
            (
                "a number out of range",
                out_of_range,
                "node.yaml:2: api.port: 70000 is not accepted; accepted: a whole number, at "
                "least 0 and at most 65535",
                "api.port",
            ),
            (
                "yes for a word",
                yes_for_a_word,
                'node.yaml:2: api.tls: "yes" is not accepted; accepted: one of auto, on, off',
                "api.tls",
            ),
            (
                "no blank after a colon",
                missing_space,
                "node.yaml:1: api: is a section; accepted: a mapping of its keys, with a blank "
                "after each colon",
                "api",
            ),
            (
                "a size and a time with their units",
                size_with_unit,
                '2 problems 1. {root}/node.yaml:2: cache.max_bytes: "64MB" is text; accepted: a '
                'whole number of bytes, at least 1024 2. {root}/node.yaml:3: cache.ttl: "5m" is '
                "text; accepted: a number of seconds",
                "",
            ),
            (
                "a list of sections",
                a_list,
                "node.yaml:1: a mapping of sections is expected, such as “api:” with its keys "
                "indented below it",
                "",
            ),
            (
                "one text for a list",
                seeds_not_a_list,
                'node.yaml:2: network.seeds: "node-2:7401" is text; accepted: a list in brackets',
                "network.seeds",
            ),
            (
                "a seed without a port",
                bad_seed,
                "node.yaml:2: network.seeds: 'node-2' is not host:port; accepted: a name or "
                "address and a port, such as node-2:7401",
                "network.seeds",
            ),
            (
                "several mistakes at once",
                several,
                "4 problems 1. {root}/node.yaml:2: api.prot: there is no such key; did you mean "
                'api.port? 2. {root}/node.yaml:3: api.port: "eighty" is text; accepted: a whole '
                "number, at least 0 and at most 65535 3. {root}/node.yaml:5: cache.ttl: -1 is "
                "not accepted; accepted: a number of seconds, greater than 0 and at most "
                '31622400 4. NOVACRON_DATABASE__READERS: database.readers: "many" is text',
                "",
            ),
            (
                "settings that contradict each other",
                contradiction,
                "node.yaml:2: network.ping_interval: a session would be closed as idle (60 s) "
                "before its next ping; accepted: less than network.idle_timeout",
                "network.ping_interval",
            ),
            (
                "an unknown variable",
                unknown_variable,
                "NOVACRON_API__PROT: no configuration key has this variable; did you mean "
                "NOVACRON_API__PORT?",
                "",
            ),
            (
                "one underscore instead of two",
                short_variable,
                "NOVACRON_API_PORT: no configuration key has this variable; did you mean "
                "NOVACRON_API__PORT?",
                "",
            ),
            (
                "two variables that disagree",
                variables_disagree,
                "NOVACRON_SYSTEM__LOG_LEVEL: system.log_level: differs from NOVACRON_LOG_LEVEL, "
                "which sets the same key",
                "system.log_level",
            ),
            (
                "a file in another encoding",
                latin_file,
                "node.yaml:1: the file is not UTF-8 text; save it as UTF-8",
                "",
            ),
            (
                "an unknown key on the command line",
                set_unknown,
                "--set api.prot: there is no such key; did you mean api.port?",
                "api.prot",
            ),
            (
                "the class of an unknown component",
                unknown_component,
                "--set boot.criticality.databse: there is no such component; did you mean "
                "boot.criticality.database?",
                "boot.criticality.databse",
            ),
            (
                "the time limit of an unknown component",
                unknown_timeout,
                "--set boot.start_timeout.databse: there is no such component; did you mean "
                "boot.start_timeout.database?",
                "boot.start_timeout.databse",
            ),
            (
                "an unknown class",
                unknown_class,
                '--set boot.criticality.database: "important" is not accepted; accepted: one of '
                "critical, degraded, warning",
                "boot.criticality.database",
            ),
        )
    ),
    Cause(
        "there is no such file",
        no_such_file,
        78,
        "cannot read the configuration file {root}/node.yml",
        "it does not exist",
        "correct the path given with --config; without --config the defaults are used",
    ),
    Cause(
        "the file is a directory",
        file_is_a_directory,
        78,
        "cannot read the configuration file {root}",
        "it is a directory",
        "name a YAML or JSON file in it",
    ),
    Cause(
        "the file is not permitted",
        file_not_permitted,
        78,
        "cannot read the configuration file {root}/node.yaml",
        "permission is denied to the user this runs as",
        "make it and the directories above it readable for that user",
    ),
)
