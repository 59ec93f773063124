"""`bertloom plan`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from bertloom.cli.options import AsJson, Whole


def plan(
    model: str,
    *,
    length: Annotated[Whole, Parameter(help="Tokens of a sequence.")] = 128,
    batch: Annotated[Whole, Parameter(help="Sequences of a step.")] = 32,
    memory: Annotated[str | None, Parameter(help="Memory, as 16GB; what is free here unless given.")] = None,
    family: Annotated[str, Parameter(help="Make of that size one of another family, as pretrain does.")] = "",
    objective: Annotated[str, Parameter(help="What is learned; what the family was published with unless given.")] = "",
    positions: Annotated[Whole, Parameter(help="Positions, where not as many as the preset's.")] = 0,
    vocab_size: Annotated[Whole | None, Parameter(help="Tokens in the vocabulary; the preset's unless given.")] = None,
    mask_share: Annotated[float, Parameter(help="Share of the tokens that is hidden.")] = 0.15,
    steps: Annotated[Whole, Parameter(help="Steps the time is said for.")] = 1000,
    json: AsJson = False,
) -> None:
    """Say what a run will take: parameters, memory, FLOPs, and time at this machine's measured rate.

    Parameters
    ----------
    model
        tiny, mini, small, medium, base, large or a preset's full name.
    """
    from dataclasses import replace

    from bertloom import planning
    from bertloom.cli.show import percent, print_json, print_table, say
    from bertloom.config import in_family, preset
    from bertloom.errors import InputError

    if steps < 1:
        raise InputError(f"steps: {steps} given, at least 1 allowed")
    config = in_family(preset(model), family) if family else preset(model)
    config = config if vocab_size is None else replace(config, vocab_size=vocab_size)
    if positions:
        config = replace(config, max_position_embeddings=positions + config.first_position)
    made = planning.plan(
        config, length, batch, None if memory is None else planning.parse_bytes(memory), mask_share=mask_share,
        objective=objective,
    )  # fmt: skip
    said = made.to_dict()
    if json:
        print_json({"model": model, "length": length, "batch": batch, **said})
        return
    counts = said["parameters"]
    print_table(
        f"{model}{f' as {family}' if family else ''}, {made.objective}: parameters",
        ("part", "parameters"),
        [(name, f"{n:,}") for name, n in counts.items()],
    )
    print_table(
        f"Memory for micro-batches of {made.micro_batch} × {length} tokens, of {made.memory / 1e9:.1f} GB",
        ("held by", "GB"),
        [(name, f"{number / 1e9:.2f}") for name, number in said["bytes"].items()],
    )
    flops = said["flops_per_token"]
    total = sum(flops.values())
    print_table(
        f"Training FLOPs per token at length {length}",
        ("part", "MFLOP", "share"),
        [(name, f"{number / 1e6:,.1f}", percent(number / total)) for name, number in flops.items()]
        + [
            (f"all, at length {n}", f"{number / 1e6:,.1f}", "")
            for n, number in said["flops_per_token_by_length"].items()
        ],
    )
    seconds = said["seconds_per_step"]
    print_table(
        "Time on this machine",
        ("", ""),
        [
            ("measured rate", f"{made.flops_per_second / 1e9:,.0f} GFLOP/s"),
            ("speed", f"{made.tokens_per_second:,.0f} tokens/s"),
            (f"one step of {batch} × {length}", f"{seconds:,.2f} s"),
            (f"{steps:,} steps", duration(seconds * steps)),
        ],
    )
    say(f"For such a run: --micro-tokens {said['micro_tokens']} --batch-size {batch} --length {length}")


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
