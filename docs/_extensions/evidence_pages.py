"""The list of results: every page of benchmarks/results with its command."""

import json
import re

import mirrored

RESULTS = mirrored.ROOT / "benchmarks" / "results"
SUBJECTS = {
    "Training": (
        "headline",
        "testbeds",
        "headline_tuned",
        "headline_ideas",
        "headline_little",
        "gradient_noise",
        "prefix_cuts",
        "zoo",
        "compare_seeds",
        "sweep",
        "default/report",
        "smollm2/report",
        "gsm8k_smollm2/report",
        "smollm2_seeds",
    ),
    "Profiles and prompts": ("break_even", "profiling", "prompt_sampling"),
    "Sampling and scoring": ("sampler", "scoring", "hostile_server"),
    "Models": ("models", "vocabularies", "token_log_probs"),
    "Attention": (
        "attention",
        "attention_model",
        "prefix_allocation",
        "attention_tiles",
        "attention_cycles",
        "pallas_gpu",
    ),
    "Pods and processes": ("processes", "faults"),
}
COMMAND = re.compile(
    r"`((?:python|sgpo)\s[^`]+)`|^ {4}((?:python|sgpo) \S.*)$", re.MULTILINE
)


def page() -> str:
    """The page, as Markdown."""
    lines = ["# Evidence", "", INTRODUCTION, ""]
    rest = {str(p.relative_to(RESULTS))[:-3] for p in RESULTS.rglob("*.md")}
    for subject, names in (SUBJECTS | {"": ()}).items():
        # New pages stand under the last subject that is named.
        chosen = [n for n in names if n in rest] if subject else sorted(rest)
        rest -= set(chosen)
        if not chosen:
            continue
        if subject:
            lines += [f"## {subject}", ""]
        lines += ["| page | made by |", "|---|---|"]
        lines += [line(name) for name in chosen]
        lines += [""]
        if subject == "Training":
            lines += savings()
    lines += ["```{toctree}", ":hidden:", ":glob:", ""]
    lines += ["/_repository/benchmarks/results/**", "```", ""]
    return "\n".join(lines)


INTRODUCTION = (
    "Every number of this site has a page here, made by a command. Where it says so,"
    " a page is of an earlier version. Nothing was run on a TPU: what concerns pods is"
    " compiled ahead of time. The commands take minutes to hours on a CPU, and"
    " `pallas_gpu` needs a GPU. The pages on one topic are judged in"
    " [results](../results.md) and [decisions](../decisions.md)."
)


def line(name: str) -> str:
    """A row: title and the first command that the page names."""
    text = (RESULTS / f"{name}.md").read_text()
    heading = re.search(r"^#+ (.+)$", text, re.MULTILINE)
    title = heading[1] if heading else name.replace("_", " ")
    if title == "Report":
        title = f"Report of a run: {name.partition('/')[0]}"
    found = COMMAND.search(text)
    command = " ".join((found[1] or found[2]).split()) if found else ""
    if len(command) > 90:
        command = command[:87].rsplit(" ", 1)[0] + " ..."
    link = f"../../benchmarks/results/{name}.md"
    return f"| [{title}]({link}) | {f'`{command}`' if command else 'a run'} |"


def savings() -> list[str]:
    """Compute at equal accuracy, from headline.json."""
    found = json.loads((RESULTS / "headline.json").read_text())
    lines = []
    for name, testbed in found["testbeds"].items():
        seeds = len(testbed["seeds"])
        lines += [
            f"Total compute of `{found['baseline']}` over that of each method, testbed"
            f" `{name}`, {seeds} seed{'s' if seeds > 1 else ''},"
            f" {testbed['questions']} held-out questions (above 1: cheaper; 0: not"
            " reached):",
            "",
            "| method | 50 % | 75 % | 90 % | all of the gain |",
            "|---|---:|---:|---:|---:|",
        ]
        for method, points in testbed["savings"].items():
            cells = " | ".join(f"{point['value']:.2f}" for point in points)
            lines.append(f"| {method} | {cells} |")
        lines += [""]
    return lines


def setup(app):
    """Connect to Sphinx."""
    path = mirrored.DOCS / "_generated" / "evidence.md"
    app.connect("builder-inited", lambda _: mirrored.write(path, page()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
