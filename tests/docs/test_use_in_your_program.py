"""The server of the page answers requests, several at once, with label maps and with errors."""

import re
import threading
import types
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_model import make_tiny_model

import nnunet_core

PAGE = Path(__file__).parents[2] / "docs/how-to/use-in-your-program.md"
(CODE,) = re.findall(r'```python title="server\.py"\n(.*?)```', PAGE.read_text(), re.DOTALL)


@pytest.fixture
def address(tmp_path):
    module = types.ModuleType("server")
    exec(CODE, module.__dict__)
    folder = make_tiny_model(tmp_path / "3d_fullres", predictor="bright:Bright", folds=1)
    with nnunet_core.load_model(folder, "cpu", threads=1, trust=True) as model:
        handler = module.make_handler(model)
        handler.log_message = lambda *_: None
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()


def test_images_sent_at_once_are_answered_with_their_own_label_maps(address, tmp_path):
    def sent(number):
        array = np.random.default_rng(number).normal(100, 20, (6 + number, 9, 8))
        image = sitk.GetImageFromArray(array.astype(np.float32))
        image.SetOrigin((number, 2, 3))
        path = tmp_path / f"{number}.nii.gz"
        sitk.WriteImage(image, path)
        with urllib.request.urlopen(address, data=path.read_bytes()) as answer:
            path.write_bytes(answer.read())
        return sitk.ReadImage(path)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(sent, range(4)))
    for number, label in enumerate(found):
        assert label.GetSize() == (8, 9, 6 + number)
        assert label.GetOrigin() == (number, 2, 3)
        assert sitk.GetArrayFromImage(label).any()


def test_what_is_no_image_is_answered_with_the_reason(address):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(address, data=b"no image")
    assert error.value.code == 400
    assert "scan.nii.gz" in error.value.read().decode()
