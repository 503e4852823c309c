"""A unit of systemd for the monitor: allowed what it needs, and nothing else."""

from __future__ import annotations

from pathlib import Path

from harken.service.configuration.model import Configuration, FolderEntry

_UNIT = """\
# Written by harken monitor install, for review. Then:
#   cp {name} /etc/systemd/system/ && systemctl daemon-reload && systemctl enable --now {name}
[Unit]
Description=Harken listens to machines ({monitor})
Documentation=file:{config}
Wants=network-online.target
After=network-online.target sound.target postgresql.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={program} monitor --config {config}
ExecReload=/bin/kill -HUP $MAINPID
Restart=always
RestartSec=5
WatchdogSec=60
TimeoutStopSec=15

# A user of its own, whose folder is /var/lib/harken.
{user}
StateDirectory=harken
WorkingDirectory=%S/harken
Environment=OMP_NUM_THREADS=1 HOME=%S/harken
# Secrets of the configuration, ${{NAME}}: lines NAME=VALUE in a file that only root reads.
EnvironmentFile=-/etc/harken/secrets.env

# What it may see: the system read-only, no homes but what is named, no devices but sound cards.
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
{read}{write}DevicePolicy=closed
DeviceAllow=char-alsa rw
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes

# What it may do: no privileges, the calls of an ordinary service, the network.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
UMask=0027

# How much it may take.
MemoryMax=2G
TasksMax=4096
OOMPolicy=stop

[Install]
WantedBy=multi-user.target
"""


def unit_text(config: Path, configuration: Configuration, program: Path, *, user: str | None = None) -> str:
    """The unit of a configuration. program: absolute path of `harken`. user: that it runs as; None: one that systemd
    makes while it runs (DynamicUser)."""
    read = {config.parent} | {machine.model.parent for machine in configuration.machines.values()}
    read |= {source.path for source in configuration.sources.values() if isinstance(source, FolderEntry)}
    write = set() if "://" in configuration.store else {Path(configuration.store).parent}
    if configuration.evidence.folder is not None:
        write.add(configuration.evidence.folder)
    homes = any(path.is_relative_to(home) for path in {*read, *write, program} for home in _HOMES)
    return _UNIT.format(
        name=unit_name(configuration),
        monitor=_escaped(configuration.monitor),
        config=_quoted(config),
        program=_quoted(program),
        user="DynamicUser=yes\nSupplementaryGroups=audio" if user is None else f"User={user}",
        home="read-only" if homes else "yes",
        read="".join(f"ReadOnlyPaths={_quoted(path)}\n" for path in sorted(read - write)),
        write="".join(f"ReadWritePaths={_quoted(path)}\n" for path in sorted(write)),
    )


#: folders that ProtectHome hides
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))


def unit_name(configuration: Configuration) -> str:
    """Name of the file, in the letters that units may have."""
    letters = (char if char.isascii() and (char.isalnum() or char in "-_.") else "_" for char in configuration.monitor)
    return f"harken-{''.join(letters)}.service"


def _quoted(path: Path) -> str:
    """For lists of paths and commands, systemd.syntax(7)."""
    text = _escaped(str(path)).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if any(char in text for char in " \t\\\"'") else text


def _escaped(text: str) -> str:
    return text.replace("%", "%%").replace("\n", " ")
