"""Structure learning of ProDA (Zhang et al. 2021, arXiv:2101.10979, section 3.2): a pixel of the strong view lies among the prototypes as the teacher
sees it lie in the picture. So the target's features become compact, also where labels are wrong.
"""
from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from saccade.adaptation.context import RAW, Context, Network
from saccade.adaptation.label_losses import mean_where
from saccade.adaptation.prototypes import PrototypeBank, assignment
from saccade.adaptation.published_warps import in_strong_view, in_weak_view
from saccade.adaptation.term import Term
from saccade.adaptation.warping import bring, enlarged, maps_of, places_of, reduced_size, shown
from saccade.errors import InputError
from saccade.structures import Outputs
from saccade.structures.ranges import NonNegativeFloat, PositiveFloat, PositiveInt

PROTOTYPES = "prototypes"  # the note with the bank, which the term `Prototypes` leaves


class StructureConsistency(Term):
    """`structure_loss`: how far the student's assignment to the prototypes in the strong `view` is from that of `network` for what it `looks_at`.

    Reads `embeddings` of both networks, and the prototypes of the term `Prototypes`, which stands before this one. Assignments are softmaxes of
    -`temperature` * distance on maps with a cell for every `stride` pixels; holes of the strong view do not count (`View.holes`). `reference_quirks`:
    the published warps of maps through the `weak_view` (see `published_warps`), and a sum over pixels that is divided by the classes, too.
    """

    def __init__(
        self, *, weight: NonNegativeFloat = 1.0, view: str = "strong", network: Network = "teacher", looks_at: str = RAW,
        temperature: PositiveFloat = 1.0, stride: PositiveInt = 4, weak_view: str = "weak", reference_quirks: bool = False,
    ) -> None:
        self.weight, self.view, self.network, self.looks_at = weight, view, network, looks_at
        self.temperature, self.stride, self.weak_view, self.reference_quirks = temperature, stride, weak_view, reference_quirks

    def __call__(self, context: Context) -> dict[str, Tensor]:
        """The loss. Raises InputError where no term before it has prototypes."""
        bank = context.notes.get(PROTOTYPES)
        if not isinstance(bank, PrototypeBank):
            raise InputError("StructureConsistency reads prototypes; put the term Prototypes before it in learner.terms")
        context.read(self, self.network, self.looks_at, "embeddings")
        context.read(self, "student", self.view, "embeddings")
        batch = context.view(self.view)
        size = reduced_size(batch, self.stride)
        teacher, known = self._teacher(context, context.outputs(self.network, self.looks_at), bank, size)
        student = bank.distances(enlarged(context.outputs("student", self.view), "embeddings", batch, size))
        loss = structure_consistency(
            student, teacher, known & shown(batch, size), temperature=self.temperature, reference_quirks=self.reference_quirks)
        return {"structure_loss": self.weight * loss}

    def _teacher(self, context: Context, outputs: Outputs, bank: PrototypeBank, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(N, C, h, w) distances at the places of the strong view, and (N, h, w) where they are known."""
        picture = context.view(self.looks_at)
        if self.reference_quirks:
            weak = context.view(self.weak_view)
            distances = bank.distances(in_weak_view(outputs["embeddings"], picture, weak))
            return in_strong_view(distances, weak, context.view(self.view))
        maps, places = maps_of(outputs, "embeddings", picture)
        features, known = bring(maps, places, places_of(context.view(self.view)), size)
        return bank.distances(features), known


def structure_consistency(student: Tensor, teacher: Tensor, known: Tensor, *, temperature: float = 1.0, reference_quirks: bool = False) -> Tensor:
    """The mean over `known` pixels (N, h, w) of the sum over the classes of t (log t - log s), t and s the assignments of teacher and student.

    `student` and `teacher`: distances (N, C, h, w); those of classes without a prototype are infinite and do not count. `reference_quirks`: the sum
    is divided by the number of classes, too, as in the published code.
    """
    classes = teacher[0, :, 0, 0].isfinite()
    if not bool(classes.any()):
        return teacher.new_zeros(())
    targets = assignment(teacher[:, classes].detach(), temperature)
    logs = (-temperature * student[:, classes]).log_softmax(1)
    divergence = F.kl_div(logs, targets, reduction="none").sum(1)
    return mean_where(divergence / len(classes) if reference_quirks else divergence, known)
