"""What the commands share: the options and arguments that more than one of them takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]
Dtype = Annotated[str, typer.Option(help="matmul precision: auto, fp32 or bf16; weights are always fp32")]
Threads = Annotated[int | None, typer.Option(help="CPU threads [all cores]")]

BackboneName = Annotated[str, typer.Argument(metavar="BACKBONE", help="hub id, folder or mini")]
Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of a hub id")]
AdapterDir = Annotated[Path, typer.Argument(metavar="ADAPTER_DIR", help="folder that `train --out` wrote")]
OtherBackbone = Annotated[str | None, typer.Option("--backbone", help="where the backbone now is, if it has moved")]

TaskName = Annotated[str, typer.Option(help="xnli, americasnli or a task file .yaml")]
Language = Annotated[str | None, typer.Option(help="language of label words and pattern [the task's own]")]
Json = Annotated[bool, typer.Option("--json", help="print JSON to stdout")]
