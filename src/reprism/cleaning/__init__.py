"""Find faults in the labels of a data set, by descriptors of its pictures, and take a person's answers to them.

:func:`reprism.cleaning.faults.find_faults` lists them, :mod:`reprism.cleaning.answers` takes the answers and writes a
corrected list. No picture is ever changed, moved or removed.
"""

from reprism.cleaning.answers import AnswersError, Corrected, correct, read_answers, write_list
from reprism.cleaning.duplicates import find_copies
from reprism.cleaning.faults import Faults, find_faults
from reprism.cleaning.findings import Finding, Placed, entries_of, write_findings

__all__ = [
    "AnswersError",
    "Corrected",
    "Faults",
    "Finding",
    "Placed",
    "correct",
    "entries_of",
    "find_copies",
    "find_faults",
    "read_answers",
    "write_findings",
    "write_list",
]
