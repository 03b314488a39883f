"""AdvisorConfig: everything that says how a state of the market becomes a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from bt_llm.advice._asker_config import AskerConfig
from bt_llm.advice._readers import LEAST_LABEL_MASS, Reader
from bt_llm.exceptions import ConfigError
from bt_llm.models import Numerics, kind_of
from bt_llm.prompts import PromptTemplate
from bt_llm.settings import instance, is_number, one_of
from bt_llm.verdicts import Prior, StateSpace, prior_cells, prior_source

__all__ = ["DECISIONS", "AdvisorConfig"]

Calibration = Literal["grid", "none"] | Prior

DECISIONS = "decisions:"
"""What the name of a model begins with that is a file of decisions."""

_LONGEST = 200  # characters of `identify`: it is paid for in every prompt's context


@dataclass(frozen=True, kw_only=True)
class AdvisorConfig(AskerConfig):
    """Everything that says how a state becomes a verdict; small, hashable and picklable.

    A strategy carries this in its parameters, never a model: a model in the parameters would be loaded
    again by every process and combination of an optimisation.

    Parameters
    ----------
    model : str or path, optional
        A GGUF file, a name in `models/`, or ``kind:rest``, such as ``scripted:NAME`` and ``openai:URL``; by
        default ``smollm2``. Loaded when it is first asked, once in a process for all that describe it so.
    fallbacks : sequence of str or path
        Models to ask instead, in this order, if the model is missing, damaged or too large for the memory.
        Verdicts are stored under, and say, the model that answered; one that has answered is not replaced
        in the same run.
    template : str, path or PromptTemplate, optional
        A prompt template, or its name or file; by default the one of the reader.
    state_space : StateSpace
        The features, their buckets and labels.
    reader : {'logprobs', 'json', 'contrast'}
        Read the labels' probabilities; generate JSON with a reason; or read the probabilities and take out
        what `identify` alone, a prompt that only names market and time, gets: see
        `bt_llm.verdicts.contrasted`.
    calibration : {'grid', 'none'} or Prior, optional
        See `bt_llm.verdicts`. By default 'grid' for log-probabilities, and 'none' for JSON, whose
        reason would otherwise contradict the action, and for the contrast, which is a calibration itself. The
        prior of a space of more than 512 cells comes from a fixed sample of 512 of them; the model is asked
        about these, and where bars go.
    numerics : {'canonical', 'fast'}
        Bitwise the same in any batch, or llama.cpp's defaults.
    min_label_mass : float, optional
        Share of the probability that the labels must hold together, 0 to 1, or the verdict is INVALID; by
        default 0.05, and 0 for JSON, which has no such share. Applied to what is stored,
        like calibration: changing it asks the model nothing.
    cache_dir : str or path, optional
        By default ``BT_LLM_CACHE_DIR``, or the user's cache folder.
    cache_mode : str, optional
        record, replay, refresh or off; by default ``BT_LLM_CACHE_MODE``, or record.
    n_threads : int, optional
        CPU threads; by default one a physical core. Verdicts do not depend on it.
    n_gpu_layers : int
        Layers on the GPU. Verdicts that a GPU has computed are stored as such, apart from others.
    manager : ModelManager, optional
        Whose model is asked; it stands for `model`, `fallbacks`, `n_threads` and `n_gpu_layers`.
    supplied : Supplied, optional
        Answers that are all there is to answer from; for workers.
    identify : str
        One line that tells the model which market it looks at and when, such as ``"EUR/USD, hourly,
        2017"``, before the state in every question. By default prompts are masked: they name nothing that
        could be remembered. For finding out what remembering does, see `identified_probe` and
        `leakage_probes` in `bt_llm.research`; and for the contrast reader, which takes that out.

    Examples
    --------
    >>> AdvisorConfig(model="scripted:trend").reader
    'logprobs'
    """

    state_space: StateSpace = field(default_factory=StateSpace)
    reader: Reader = "logprobs"
    calibration: Calibration | None = None
    numerics: Numerics = "canonical"
    identify: str = ""
    min_label_mass: float | None = None

    def __post_init__(self) -> None:
        """Check the choices, once."""
        super().__post_init__()
        instance("state_space", self.state_space, StateSpace, "a StateSpace")
        one_of("reader", self.reader, get_args(Reader))
        one_of("numerics", self.numerics, get_args(Numerics))
        if self.calibration is None:
            object.__setattr__(self, "calibration", "grid" if self.reader == "logprobs" else "none")
        if self.calibration == "grid" and str(self.model).startswith(DECISIONS):
            object.__setattr__(self, "calibration", "none")  # they are no function of the grid's states
        if self.calibration not in ("grid", "none") and not isinstance(self.calibration, Prior):
            raise ConfigError(f"calibration={self.calibration!r}: expected 'grid', 'none' or a Prior")
        _check_identify(self.identify)
        if self.reader == "contrast" and not self.identify:
            raise ConfigError(
                "reader='contrast' without identify: expected the line that names market and time, such as "
                "identify='EUR/USD, hourly, 2017', whose own verdict is taken out"
            )
        least = LEAST_LABEL_MASS[self.reader] if self.min_label_mass is None else self.min_label_mass
        if not is_number(least) or not 0 <= least <= 1:
            raise ConfigError(f"min_label_mass={least!r}: expected a number from 0 to 1")
        object.__setattr__(self, "min_label_mass", float(least))

    @property
    def template_source(self) -> str | PromptTemplate:
        """The template, or its name or path; the reader's own one if none was given."""
        default = "market_json" if self.reader == "json" else "market"
        if isinstance(self.template, PromptTemplate):
            return self.template
        return str(self.template) if self.template is not None else default

    @property
    def floor(self) -> float:
        """What share of the probability the labels must hold, by default too."""
        return self.min_label_mass or 0.0

    @property
    def by_bar(self) -> bool:
        """Whether the answers depend on the bar, and not on the state of the market alone."""
        if self.supplied is not None:  # nothing of the model need be here
            return self.supplied.carried is not None
        return kind_of(str(self.model)).by_bar

    @property
    def prior_cells(self) -> Sequence[int]:
        """Cells that each verdict depends on beside its own; none without calibration by the grid."""
        return prior_cells(self.state_space) if self.calibration == "grid" else ()

    @property
    def prior_note(self) -> str:
        """What is to be said where the grid's prior comes from a sample of the grid; else empty."""
        if not 0 < len(self.prior_cells) < len(self.state_space):
            return ""
        return f"verdicts are calibrated by the mean over {prior_source(self.state_space)}"


def _check_identify(line: object) -> None:
    if not isinstance(line, str) or not line.isprintable() or line != line.strip() or len(line) > _LONGEST:
        raise ConfigError(
            f"identify={line!r:.60}: expected one printable line of at most {_LONGEST} characters without "
            "blanks around it, such as 'EUR/USD, hourly, 2017'"
        )
