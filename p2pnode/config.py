"""What is one node's own business: where it listens, where its data lies, and its limits, each with its unit.

`node.toml` in the node's home holds these; all of it has defaults but the address to listen on.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from p2pnode.settings import Address, Settings, load

Seconds = Annotated[float, Field(gt=0, le=86400)]


class NodeConfig(Settings):
    """The checked settings of one node.

    Args:
        name: this node's name, as the genesis has it.
        listen: where it listens for its peers.
        admin: where it answers its owner: the page, `/status`, `/metrics`. Who reaches it may read it.
        admin_names: names by which it may be asked there, beside its own, `localhost` and addresses.
        discovery: how peers are found whose address in the genesis is not theirs any more: not at all, or by multicast
            DNS in the local network.
        data_dir: the folder of the task's data files.
        task: where the code of the user's own task is: FILE.py:NAME or MODULE:NAME.
        device: where it trains and mixes.
        threads: of the CPU, for tensors; 0 leaves the number to torch.
        autocast: whether gradients are computed in mixed precision (bfloat16).
        pieces: into so many parts a batch is cut, which go through the model one after another, to save memory.
        evaluate_every: steps from one evaluation of the model to the next; 0 evaluates it at the end only.
        evaluate_samples: test samples that an evaluation on the way takes; the last one takes all.
        checkpoint_every: steps from one checkpoint to the next; 0 makes one when the node ends only.
        observe: what share of the time looking at vectors for the page may take; 0 looks at none.
        linger_s: seconds that it stays after its last step, for peers that are not done.
        handshake_s: seconds that a link may take to open.
        reconnect_s: seconds between two tries to open a link, at most.
        ban_s: seconds that a peer's first ban lasts, each later one twice as long as the last; 0 bans nobody.
        forgive_s: seconds in which half of what is held against a peer is forgiven.
        control_backlog_bytes_max: unsent bytes of messages above which a link is closed; the peer hears all again when
            it is back.
        bulk_backlog_bytes_max: the same of vectors.
    """

    name: str = Field(description="write this node's name as the genesis has it")
    listen: Address = Field(description="write it as host:port; 0.0.0.0:port listens on every interface")
    admin: Address = Field("127.0.0.1:0", description="write it as host:port; port 0 lets the system choose")
    admin_names: list[Annotated[str, Field(pattern=r"^[^\s:/]+$")]] = Field(
        [], description='write the names, without ports, by which the admin address is asked: ["node.example.org"]'
    )
    discovery: Annotated[str, Field(pattern=r"^(none|mdns)$")] = Field(
        "none", description="choose none, or mdns to be found on the local network by peers that seek this node"
    )
    data_dir: str | None = Field(None, description="write the folder that holds the task's data files")
    task: Annotated[str, Field(pattern=r"^.+:[^:]+$")] | None = Field(
        None, description="name your own code of the genesis' task as FILE.py:NAME or MODULE:NAME"
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)(, ?(cpu|cuda(:[0-9]+)?))*$")] = Field(
        "auto", description="choose auto, cpu, cuda or cuda:N, or several GPUs: cuda:0,cuda:1"
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(0, description="choose CPU threads, or 0 for torch's choice")
    autocast: bool = Field(False, description="choose true for gradients in mixed precision (bfloat16), or false")
    pieces: Annotated[int, Field(ge=1, le=2**20)] = Field(
        1, description="choose in how many pieces a batch goes through the model, one after another, to save memory"
    )
    evaluate_every: Annotated[int, Field(ge=0)] = Field(100, description="choose a number of steps, or 0 for never")
    evaluate_samples: Annotated[int, Field(ge=1)] = Field(500, description="choose at least 1 test sample")
    checkpoint_every: Annotated[int, Field(ge=0)] = Field(50, description="choose a number of steps, or 0 for never")
    observe: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="choose what share of the time looking at vectors for the page may take, or 0 for none"
    )
    linger_s: Annotated[float, Field(ge=0, le=86400)] = Field(
        60.0, description="choose how many seconds to wait, after the last step, for peers that have not finished"
    )
    handshake_s: Seconds = Field(10.0, description="choose how many seconds a link may take to open")
    reconnect_s: Seconds = Field(2.0, description="choose the longest pause, in seconds, between two tries of a link")
    ban_s: Annotated[float, Field(ge=0, le=86400)] = Field(
        60.0, description="choose how many seconds a peer's first ban lasts, or 0 to ban nobody"
    )
    forgive_s: Seconds = Field(
        3600.0, description="choose after how many seconds half of what is held against a peer is forgiven"
    )
    control_backlog_bytes_max: Annotated[int, Field(ge=2**20)] = Field(
        16 * 2**20, description="choose at least 1 MiB of unsent messages a peer"
    )
    bulk_backlog_bytes_max: Annotated[int, Field(ge=2**20)] = Field(
        512 * 2**20, description="choose at least 1 MiB of unsent vectors a peer"
    )

    @classmethod
    def load(cls, path: Path) -> "NodeConfig":
        """Read `node.toml`.

        Raises:
            ConfigError: if the file is missing or wrong anywhere.
        """
        return load(cls, path, "make a home with `p2pnode init`")
