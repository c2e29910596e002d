import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import safetensors.numpy
import torch
from torchvision.models import MobileNetV2

from early_exit.weights import (
    WeightsError,
    WeightsOutOfReach,
    check_weights,
    expected_shapes,
    imagenet_weights,
    parse_weights,
    read_weights,
)


def features(width):
    """A MobileNetV2's features.* as numpy arrays."""
    state = MobileNetV2(width_mult=width, num_classes=2).state_dict()
    return {name: tensor.numpy() for name, tensor in state.items() if name.startswith("features.")}


@pytest.mark.parametrize("width", [0.1, 0.35, 0.5, 0.75, 1.0, 1.4])
def test_expected_shapes_are_torchvisions(width):
    assert expected_shapes(width) == {name: array.shape for name, array in features(width).items()}


def test_full_width_has_312_tensors():
    assert len(expected_shapes(1.0)) == 312


def test_reading_weights_loads_no_torch():
    code = "import sys, early_exit.weights; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_safetensors_file_is_read(tmp_path):
    tensors = features(0.1)
    safetensors.numpy.save_file(tensors, tmp_path / "weights.safetensors")
    read = read_weights(tmp_path / "weights.safetensors")
    check_weights(read, expected_shapes(0.1), "mobilenet_v2")
    assert all(np.array_equal(read[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("features.3.conv.2.weight", None, "tensor 'features.3.conv.2.weight' is missing"),
        ("classifier.1.weight", np.zeros(3, np.float32), "unexpected tensor 'classifier.1.weight'"),
        (
            "features.0.1.bias",
            np.zeros(9, np.float32),
            r"'features.0.1.bias' is \(9,\), but this network has \(8,\)",
        ),
        ("features.0.1.bias", np.zeros(8, np.float64), "'features.0.1.bias' is float64, not float32"),
        (
            "features.0.1.bias",
            np.full(8, np.inf, np.float32),
            "'features.0.1.bias' holds a value that is not",
        ),
        (
            "features.0.1.running_var",
            np.full(8, -1, np.float32),
            "'features.0.1.running_var' holds a negative",
        ),
        ("features.0.1.num_batches_tracked", np.zeros((), np.float32), "is float32, not int64"),
    ],
)
def test_the_first_wrong_tensor_is_named(name, value, message):
    tensors = features(0.1)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    with pytest.raises(WeightsError, match=message):
        check_weights(tensors, expected_shapes(0.1), "this network")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"\n <!DOCTYPE html><html>", "HTML or XML page"),
        (b"PK\x03\x04 a zip", "pickled torch file"),
        (b"\x80\x02}q\x00.", "pickled torch file"),
        (b"abc", "not a safetensors file, or cut short"),
        ((2**60).to_bytes(8, "little") + b"{}", "not a safetensors file, or cut short"),
        ((2**21).to_bytes(8, "little") + b" " * 2**21, "a header of 2,097,152 bytes"),
        ((2).to_bytes(8, "little") + b"[]", "not a safetensors file"),
        ((4).to_bytes(8, "little") + b"\xff\xff\xff\xff", "not a safetensors file"),
        (safetensors.numpy.save({"conv1": np.zeros(2, np.float32)}), "no tensor is named features"),
        (
            safetensors.numpy.save({"features.0": np.zeros(9, np.float32)})[:-4],
            "not a readable safetensors file",
        ),
    ],
)
def test_what_is_no_weights_file_is_said_to_be_what_it_is(data, message):
    with pytest.raises(WeightsError, match=message):
        parse_weights(data, "w")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="not a regular file"):
        read_weights(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="No such file"):
        read_weights(tmp_path / "missing")
    with pytest.raises(WeightsError, match="Is a directory"):
        read_weights(tmp_path)


@pytest.fixture
def serve():
    """Serve bytes on loopback; gives their URL."""
    servers = []

    def start(data):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # http.server's name
                self.send_response(200 if data is not None else 404)
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/weights.pth"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_imagenet_download_is_checked_and_converted(serve, tmp_path):
    torch.manual_seed(0)
    state = MobileNetV2(num_classes=2).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    data = (tmp_path / "weights.pth").read_bytes()
    weights = imagenet_weights(serve(data), hashlib.sha256(data).hexdigest()[:8])
    assert sorted(weights) == sorted(expected_shapes(1.0))
    assert np.array_equal(weights["features.18.0.weight"], state["features.18.0.weight"].numpy())


def test_a_download_of_other_bytes_is_refused(serve):
    with pytest.raises(WeightsError, match="does not start with b0353104"):
        imagenet_weights(serve(b"something else"))


def test_a_download_that_would_run_code_is_refused(serve, tmp_path):
    data = b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    with pytest.raises(WeightsError, match="cannot be converted"):
        imagenet_weights(serve(data), hashlib.sha256(data).hexdigest())
    assert not (tmp_path / "ran").exists()


def test_an_unreachable_download_says_what_to_do(serve):
    with pytest.raises(WeightsOutOfReach, match="cannot be downloaded: HTTP Error 404"):
        imagenet_weights(serve(None))
