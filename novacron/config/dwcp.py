"""The section ``dwcp``: how data moves between nodes. Part of :mod:`novacron.config.schema`."""

from typing import Literal

from pydantic import Field

from novacron.config.section import RELOADABLE, Port, Seconds, Section, Size


class AmstSettings(Section):
    """The multi-stream transport that moves files and virtual machines between nodes."""

    listen_address: str | None = Field(
        None,
        description="Address the data listener binds. Unset: the one of network.listen_address.",
    )
    port: Port = Field(
        7403, description="TCP port other nodes open data streams to; 0 takes a free one."
    )
    protocol: Literal["auto", "v3", "v1"] = Field(
        "auto",
        description="auto: version 3 (many streams, C engine), or version 1 (one TLS stream) where a node cannot. v3: version 1 with nobody. v1: only version 1.",
    )
    encryption: Literal["on", "off"] = Field(
        "on",
        description="off sends payload in the clear, still with checksums. Needs dwcp.mode datacenter, and the same on the other node.",
    )
    rdma: Literal["auto", "off"] = Field(
        "auto", description="auto: RDMA where both nodes have a device that works, TCP elsewhere."
    )
    rdma_device: str | None = Field(
        None, max_length=64, description="RDMA device to use, such as mlx5_0. Unset: the first."
    )
    directories: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="Absolute directories that other nodes and operators may have read and written; relative paths are below the first. Empty: transfers in the data directory.",
    )
    streams_min: int = Field(1, ge=1, le=256, description="Fewest streams of one link.")
    streams_max: int = Field(256, ge=1, le=256, description="Most streams of one link.")
    streams_start: int = Field(
        0,
        ge=0,
        le=256,
        description="Streams a link starts with. 0: 1 on one host, 4 in a datacenter, else 8.",
    )
    chunk_bytes: int = Field(
        1024 * 1024,
        ge=65536,
        le=4 * 1024**2,
        multiple_of=4096,
        description="Unit that is checksummed, sent on one stream and resumed, in bytes.",
    )
    window_bytes: int = Field(
        64 * 1024**2,
        ge=4 * 1024**2,
        le=4 * 1024**3,
        description="Memory for received payload of one link, in bytes. Bounds its rate: this much for each round trip.",
    )
    threads: int = Field(
        0, ge=0, le=16, description="Threads that move payload. 0: one for each CPU, at most 4."
    )
    limit_bps: Size = Field(
        0,
        description="Bytes a second this node sends in all transfers together. 0: no limit.",
        json_schema_extra=RELOADABLE,
    )
    link_timeout: Seconds = Field(
        30.0, description="Seconds without any stream to a node after which its link has failed."
    )
    retry_for: Seconds = Field(
        3600.0, description="Seconds an interrupted transfer keeps trying before it has failed."
    )
    keep_partial: Seconds = Field(
        604800.0, description="Seconds that partial files of ended transfers are kept."
    )
    max_transfers: int = Field(
        64, ge=1, le=4096, description="Transfers at once; past it they wait."
    )
    max_links: int = Field(64, ge=1, le=4096, description="Nodes with a data link at once.")
    congestion: str = Field(
        "auto",
        pattern=r"^[a-z0-9_-]{1,15}$",
        json_schema_extra={"accepted": "auto, or the name of one the kernel offers, such as bbr"},
        description="TCP congestion control of data streams. auto: by the path, cubic on the same host and in the datacenter (dctcp there with dwcp.acp.dctcp), else bbr; cubic where this process may not use that.",
    )


class HdeSettings(Section):
    """The encoding of what is moved: codecs, and differences to what the receiver has."""

    codec: Literal["auto", "off", "lz4", "zstd"] = Field(
        "auto",
        description="auto: for each chunk the codec that gets it over soonest, or none. off: as it is; the size of what is sent then tells nothing about its content. lz4, zstd: always that one, where it makes a chunk smaller.",
    )
    level: int = Field(3, ge=-7, le=19, description="Level of zstd, where dwcp.hde.codec is zstd.")
    level_max: int = Field(9, ge=-7, le=19, description="Highest level of zstd that auto may take.")
    cpu: float = Field(
        0.0,
        ge=0.0,
        le=64.0,
        description="CPU cores that encoding may use on this node; past it chunks are sent as they are. 0: as many as there are dwcp.amst.threads.",
    )
    dedup: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether a receiver looks for what it holds in other files before a file is moved. auto: with nodes of other hosts, and before files are overwritten. always: with all. never: not at all, and received files are not indexed.",
    )
    dedup_min_bytes: int = Field(
        4 * 1024**2,
        ge=256 * 1024,
        description="Smaller files are neither indexed nor looked for, in bytes.",
    )
    index_max_bytes: int = Field(
        256 * 1024**2,
        ge=1024**2,
        description="Disk space of the index of received blocks, in bytes; files that were of no use for longest are forgotten. 1 MiB is for about 1 GiB of files.",
    )
    tenant: str = Field(
        "default",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9._-]+$",
        json_schema_extra={"accepted": "letters, digits, dots, dashes and underscores"},
        description="Tenant of transfers that name none, and of files without a mark of another one. What one tenant has is never made use of for another.",
    )
    dictionary: str | None = Field(
        None,
        max_length=4096,
        description="File of a dictionary for messages that novacron hde train made; used with nodes that have the same one. Unset: the one that comes with the package.",
    )
    keep_messages: bool = Field(
        False,
        description="Keep up to 1024 messages about transfers, with the names of files in them, in dwcp/messages in the data directory, for novacron hde train --from-traffic.",
    )


class DetectionSettings(Section):
    """How paths to other nodes are measured, and the network mode is found."""

    interval: Seconds = Field(
        1.0, ge=0.1, le=60, description="Seconds between two samples of each path."
    )
    samples: int = Field(
        10, ge=5, le=100, description="Round trips that a path is judged by, the newest."
    )
    hysteresis: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="How much better than the present mode another has to score to replace it; scores go from 0 to 1.",
    )
    cool_down: Seconds = Field(
        30.0, ge=1, le=3600, description="Seconds a mode stays at least, once there is one."
    )


class AcpWeights(Section):
    """What the classes of traffic on one link get beside each other. Control has no weight: it comes
    first."""

    state: int = Field(
        16, ge=1, le=1000, description="Weight of state synchronisation and urgent transfers."
    )
    migration: int = Field(
        4, ge=1, le=1000, description="Weight of migrations and normal transfers."
    )
    bulk: int = Field(1, ge=1, le=1000, description="Weight of background transfers.")


class AcpSettings(Section):
    """Adaptive congestion prevention: what kind each path is, and how to send on it so that queues do
    not build."""

    dctcp: Literal["auto", "off"] = Field(
        "off",
        description="auto: DCTCP to nodes within the datacenter, where both agree on ECN. Only where the switches between them mark: no node can find that out.",
    )
    queue: Literal["on", "off"] = Field(
        "on",
        description="on: pace each link so that it builds no queue on its path. off: leave that to TCP congestion control.",
    )
    fairness: Literal["transfer", "flow", "greedy"] = Field(
        "transfer",
        description="What a link is beside flows that fill the queue whatever it does. transfer: one flow, however many streams it has. flow: as many as it has streams. greedy: it never yields to delay.",
    )
    weights: AcpWeights = AcpWeights.model_construct()


class DwcpSettings(Section):
    """The distributed WAN communication protocol."""

    mode: Literal["auto", "datacenter", "internet", "hybrid"] = Field(
        "auto",
        description="Network mode. auto measures it and uses the defaults; any other is forced, and names the profile whose values replace the defaults.",
    )
    amst: AmstSettings = AmstSettings.model_construct()
    hde: HdeSettings = HdeSettings.model_construct()
    acp: AcpSettings = AcpSettings.model_construct()
    detection: DetectionSettings = DetectionSettings.model_construct()
