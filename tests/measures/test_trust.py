"""What the package says of the agreement of measures with viewers and people."""

import subprocess
import sys

import pytest

from fuscore_metric.measures import trust
from fuscore_metric.measures.catalogue import MEASURES


def test_every_measure_has_its_agreement_and_fuscore_stands_first():
    known = trust.agreements()
    assert list(known) == [trust.OWN, *MEASURES]
    for one in known.values():
        for number in vars(one).values():
            assert -1 <= number.low <= number.high <= 1
            assert -1 <= number.value <= 1


def test_the_file_says_whose_opinions_these_are():
    facts = trust.facts()
    assert facts["viewers"]["label_kind"] == "model"
    assert facts["people"]["label_kind"] == "human"
    assert facts["fuscore"]["pictures"] < facts["viewers"]["pictures"]
    said = " ".join(trust.statements())
    assert "not human" in said
    assert facts["date"] in said


def test_doubtful_measures_are_named_in_the_order_given():
    known = trust.agreements()
    names = sorted(MEASURES)
    found = trust.doubtful(names)
    assert found == [name for name in names if known[name].within.value < trust.DOUBTFUL]
    assert 0 < len(found) < len(names)
    assert all(name in trust.doubts(names) for name in found)
    rest = [name for name in names if name not in found]
    assert trust.doubts(rest) == trust.doubts([trust.OWN]) == trust.doubts([]) == ""
    with pytest.raises(KeyError, match="beauty"):
        trust.doubtful(["beauty"])


def test_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom fuscore_metric.measures import trust\ntrust.doubts(['EN'])\n"
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
