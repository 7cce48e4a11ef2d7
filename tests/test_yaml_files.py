import pytest

from scoremd.errors import ScoreMDError
from scoremd.yaml_files import read_yaml


@pytest.mark.parametrize(
    "content", ["name: 2020-13-45", "a: !!float abc", "a: !!timestamp foo", "a: [", "[" * 5000, "!!python/name:os.system"]
)
def test_what_yaml_stumbles_over_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises(ScoreMDError, match=r"a\.yaml: not valid YAML \(") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_plain_data_is_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("{a: [1, 2.5], b: null}")
    assert read_yaml(path) == {"a": [1, 2.5], "b": None}
