"""`node.toml`: all has defaults but name and listen, and every mistake is a ConfigError that helps."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError

LEAST = 'name = "a"\nlisten = "0.0.0.0:7000"\n'


def load(tmp_path, text):
    path = tmp_path / "node.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return NodeConfig.load(path)


def test_name_and_listen_suffice_and_admin_stays_on_this_machine(tmp_path):
    config = load(tmp_path, LEAST)
    assert (config.name, config.listen, config.data_dir) == ("a", "0.0.0.0:7000", None)
    assert config.admin.startswith("127.0.0.1:")


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    assert load(tmp_path, LEAST + 'data_dir = "données"').data_dir == "données"


def test_whole_numbers_are_seconds_too(tmp_path):
    assert load(tmp_path, LEAST + "handshake_s = 3").handshake_s == 3.0


@pytest.mark.parametrize("key", ["name", "listen"])
def test_what_has_no_default_must_be_there(tmp_path, key):
    text = "".join(line for line in LEAST.splitlines(keepends=True) if not line.startswith(key))
    with pytest.raises(ConfigError, match=rf"node\.toml: {key}: field required\. Remedy: write "):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("admin = 7000", "admin = '7000': input should be a valid string. Remedy: write it as host:port"),
        ('admin = "localhost"', "admin = 'localhost': "),
        ('device = "gpu"', "device = 'gpu': "),
        ('device = "cuda:0,gpu"', "device = 'cuda:0,gpu': "),
        ('device = "cuda:0,auto"', "device = 'cuda:0,auto': "),
        ('device = "cuda:x"', "Remedy: choose auto, cpu, cuda or cuda:N"),
        ('device = "cuda:١"', "device = "),
        ("threads = -1", "threads = '-1': input should be greater than or equal to 0. Remedy: choose CPU threads"),
        ("threads = 1.0", "threads = '1.0': input should be a valid integer"),
        ("threads = true", "threads = 'True': input should be a valid integer"),
        ("handshake_s = 0", "handshake_s = '0': input should be greater than 0. Remedy: choose how many seconds"),
        ("reconnect_s = nan", "reconnect_s = 'nan': input should be a finite number"),
        ("linger_s = inf", "linger_s = 'inf': "),
        ("evaluate_samples = 0", "evaluate_samples = '0': "),
        ("control_backlog_bytes_max = 1048575", "Remedy: choose at least 1 MiB of unsent messages a peer"),
        ("handshake = 3", "handshake = '3': extra inputs are not permitted. Remedy: remove it, or mend its spelling"),
        ("threads = 2020-01-01", "threads = '2020-01-01': input should be a valid integer"),
        ("threads = 0x" + "f" * 5000, "threads = a int too large to show: "),
        ("threads = " + "9" * 5000, "not TOML (Exceeds the limit"),
        ("threads = " + "[" * 10_000, "not TOML (maximum recursion depth exceeded"),
        ("threads =", "not TOML (Invalid value"),
        ("threads = 1\nthreads = 2", "not TOML (Cannot overwrite a value"),
    ],
)
def test_a_mistake_is_refused_with_key_value_reason_and_remedy(tmp_path, line, wanted):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, LEAST + line)
    assert str(caught.value).startswith(f"{tmp_path / 'node.toml'}: ")
    assert wanted in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"No such file or directory\. Remedy: make a home with `p2pnode init`"):
        NodeConfig.load(tmp_path / "node.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        load(tmp_path, b"\xff\xfe")


def test_every_remedy_is_written_down():
    assert all(field.description for field in NodeConfig.model_fields.values())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.text('=[]{}"\n.#x1e-', max_size=30) | st.binary(max_size=20))
def test_any_bytes_are_a_config_or_a_config_error(tmp_path, text):
    try:
        load(tmp_path, LEAST.encode() + (text if isinstance(text, bytes) else text.encode()))
    except ConfigError as error:
        assert "Remedy: " in str(error) or "mend that line" in str(error)  # noqa: PT017  all of its messages do
