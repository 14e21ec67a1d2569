"""How long the viewer takes to the first image of a CT of 200 slices, in Chromium.

    python tests/benchmarks/viewer.py --slices 200 --visits 5

From the moment at which the address is entered, by somebody who has signed in, until pixels of the
image are on the screen; first with an empty browser, then as the same browser comes again. Without
a graphics card the browser draws by its processor. And the series' metadata over HTTP: for its own
hospital, for another, and in the viewer's form.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE.parent / "support"), str(_HERE.parents[1] / "sample_data")]

import httpx2  # noqa: E402
from browsing import DRAWN, chromium, opened, sign_in, visitor  # noqa: E402
from images import RESIDENT_ID_ISSUER  # noqa: E402
from pydicom import Dataset, FileDataset, dcmread  # noqa: E402
from pydicom.uid import UID  # noqa: E402
from region import ADMINISTRATOR, credit_code  # noqa: E402
from running import DICOM_JSON, PASSWORD, RunningExchange  # noqa: E402
from sample_city import generate  # noqa: E402

from exchange import organizations, users  # noqa: E402
from exchange.organizations import Entity  # noqa: E402
from exchange.policy import Role  # noqa: E402
from exchange_server.settings import Settings  # noqa: E402
from exchange_server.viewer import installation  # noqa: E402
from exchange_server.viewer.viewer import opening  # noqa: E402

STUDY, SERIES = "1.2.826.1", "1.2.826.1.1"
HOSPITALS = (("bc", "北城医院", "2.25.101"), ("nh", "南湖医院", "2.25.102"))
CARD = "21990119491231002X"


def slices(folder: Path, count: int) -> None:
    """A CT of so many slices of 512², made of one of the sample city's."""
    city = generate(folder / "city", "small")
    study = next(one for one in city.studies if one.series[0].modality == "CT")
    image = dcmread(next((folder / "city" / study.folder).glob("001-*.dcm")))
    other, issuer = Dataset(), Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = RESIDENT_ID_ISSUER, "ISO"
    other.PatientID, other.IssuerOfPatientIDQualifiersSequence = CARD, [issuer]
    image.OtherPatientIDsSequence = [other]
    image.PatientBirthDate, image.PatientSex = "19491231", "F"
    image.StudyInstanceUID, image.SeriesInstanceUID = STUDY, SERIES
    (folder / "slices").mkdir()
    for number in range(1, count + 1):
        _named(image, f"{SERIES}.{number}")
        image.InstanceNumber = str(number)
        image.ImagePositionPatient = [*image.ImagePositionPatient[:2], float(number)]
        image.save_as(folder / "slices" / f"{number}.dcm")
    image.StudyInstanceUID, image.SeriesInstanceUID = "1.2.826.2", "1.2.826.2.1"
    _named(image, "1.2.826.2.1.1")
    image.PatientID = "N7"
    image.save_as(folder / "own.dcm")


def _named(image: FileDataset, instance: str) -> None:
    image.SOPInstanceUID = instance
    image.file_meta.MediaStorageSOPInstanceUID = UID(instance)


def serve(folder: Path) -> RunningExchange:
    """An exchange of two hospitals; the second knows the patient of the first, and may see it."""
    usual = {"EXCHANGE_WEB_PROCESSES": str(Settings().web_processes)}
    made = RunningExchange(folder, usual | {"EXCHANGE_VIEWER": str(installation.cache())})
    with made.opened() as exchange:
        for number, (code, name, issuer) in enumerate(HOSPITALS):
            with exchange.on_behalf_of(ADMINISTRATOR) as access:
                organizations.register(
                    access,
                    code=code,
                    name=name,
                    credit_code=credit_code(f"1212000012345{number:04}"),
                    issuer=issuer,
                    entities=[Entity(title=code.upper(), address="127.0.0.1")],
                )
            with exchange.on_behalf_of(ADMINISTRATOR) as access:
                users.add(
                    access,
                    name=f"dr.{code}",
                    display_name=name,
                    role=Role.CLINICIAN,
                    organization=code,
                    password=PASSWORD,
                )
    made.start()
    return made


def visits(site: RunningExchange, count: int) -> list[tuple[float, float]]:
    """Seconds to the first image, and of them those of the page's thread, of each visit."""
    taken: list[tuple[float, float]] = []
    with chromium() as browser, visitor(browser, site.url) as reader:
        page = reader.new_page()
        page.goto("/portal/sign-in")
        sign_in(page, "dr.bc", PASSWORD)
        page.wait_for_url("**/portal/**")
        page.close()
        for _ in range(count):
            with opened(reader, site.url) as (page, _):
                tools = reader.new_cdp_session(page)
                tools.send("Performance.enable", {"timeDomain": "threadTicks"})
                page.goto(opening([STUDY]), wait_until="commit")
                drawn = float(page.wait_for_function(DRAWN, polling=50).json_value()) / 1000
                told = tools.send("Performance.getMetrics")["metrics"]
                busy = next(one["value"] for one in told if one["name"] == "TaskDuration")
                taken.append((drawn, float(busy)))
    return taken


def metadata(site: RunningExchange, who: str, root: str, count: int = 50) -> list[float]:
    """Milliseconds of so many requests, the first of which nobody has made before."""
    taken: list[float] = []
    with site.web(who) as client:
        for _ in range(count):
            began = time.perf_counter()
            answer: httpx2.Response = client.get(
                f"{root}/studies/{STUDY}/series/{SERIES}/metadata", headers={"Accept": DICOM_JSON}
            )
            taken.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, answer.text
    return taken


def main() -> None:
    """Print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--visits", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slices(folder, asked.slices)
        site = serve(folder)
        try:
            for calling, path in (("BC", "slices"), ("NH", "own.dcm")):
                sent = site.dcmsend(calling, folder / path)
                assert sent.returncode == 0, sent.stderr
            time.sleep(15)  # for the worker, which waits until a study is quiet
            first, *again = visits(site, asked.visits)
            print(f"first image: empty browser {first[0]:.2f} s", end="")
            print(f", again {statistics.median(one for one, _ in again):.2f} s" if again else "")
            busy = " ".join(f"{own:.2f}" for _, own in (first, *again))
            print(f"of them the page's main thread was busy: {busy} s, whatever else runs here")
            for who in ("dr.bc", "dr.nh"):
                for root in ("/dicom-web", "/viewer/dicom-web"):
                    took = metadata(site, who, root)
                    print(
                        f"metadata of {asked.slices} instances, {who} at {root}: "
                        f"first {took[0]:.1f} ms, p50 {statistics.median(took):.1f} ms"
                    )
        finally:
            site.stop()


if __name__ == "__main__":
    main()
