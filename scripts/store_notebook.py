"""Run examples/quickstart.ipynb and store its outputs in it, with pictures as JPEG so that the file stays small.

python scripts/store_notebook.py
"""

import base64
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"


def main() -> None:
    """Run the command line."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]  # nbformat has no types
    with TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.get("metadata", {}).pop("execution", None)  # times, which differ from run to run
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = Image.open(io.BytesIO(base64.b64decode(data.pop("image/png")))).convert("RGB")
                encoded = io.BytesIO()
                picture.save(encoded, "JPEG", quality=85)
                data["image/jpeg"] = base64.b64encode(encoded.getvalue()).decode()
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, NOTEBOOK)  # type: ignore[no-untyped-call]  # nbformat has no types


if __name__ == "__main__":
    main()
