"""What requests bring: their JSON bodies, options and query strings."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lamanas_core.config import PRESETS

# Far beyond every setting: protects against a list that would fill the memory before it is counted.
MAX_ITEMS = 100_000
MAX_NAME = 200
MAX_SEED = 2**32 - 1
MAX_STEPS = 1000


def _whole(value: Any) -> Any:
    """An integer for a float without a fraction: JSON Schema, and some programs that write JSON, treat 3.0 as one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Listed after the limits, which apply to the integer.
WHOLE = BeforeValidator(_whole)


class Request(BaseModel):
    """A body: types are not converted, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Query(BaseModel):
    """A query string: unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid")


class EpisodeOptions(Request):
    """The options of a new episode besides its images, in JSON or as form fields."""

    steps: Annotated[int, Field(ge=0, le=MAX_STEPS), WHOLE] | None = Field(
        None, description="gradient steps K; the model's default if left out"
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED), WHOLE] = 0
    name: str | None = Field(None, max_length=MAX_NAME, description="a name for display, which need not be unique")
    model: str = Field(
        "auto",
        max_length=MAX_NAME,
        description="the meta-model to adapt: `drawings` or `photos` for the active one of that kind, a version, or "
        "`auto` for the kind that the images seem to be",
    )


class SupportImage(Request):
    label: str
    image: str = Field(description="a PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF file in base64")


Unlabelled = Annotated[list[str], Field(max_length=MAX_ITEMS, description="images without a label, in base64")]


class EpisodeBody(EpisodeOptions):
    support: list[SupportImage] = Field(max_length=MAX_ITEMS)
    unlabelled: Unlabelled = []


class CorrectionOptions(Request):
    """The options of a corrected episode besides its images; those left out are copied from its parent."""

    steps: Annotated[int, Field(ge=0, le=MAX_STEPS), WHOLE] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED), WHOLE] | None = None
    name: str | None = Field(None, max_length=MAX_NAME)


class Relabel(Request):
    image: Annotated[int, Field(ge=0, description="the index of one of the parent's images, from 0"), WHOLE]
    label: str


class CorrectionBody(CorrectionOptions):
    """Images are identified by their indices, from 0, in the list that `GET /episodes/{id}/support` returns.

    An image without a label gets one by `relabel`.
    """

    remove: list[Annotated[int, Field(ge=0), WHOLE]] = Field([], max_length=MAX_ITEMS)
    relabel: list[Relabel] = Field([], max_length=MAX_ITEMS)
    add: list[SupportImage] = Field([], max_length=MAX_ITEMS)
    unlabelled: Unlabelled = []


class PredictBody(Request):
    episode_id: str = Field(max_length=64)
    images: list[str] = Field(
        max_length=MAX_ITEMS, description="PNG, JPEG, WebP, GIF, HEIC, AVIF, BMP or TIFF files in base64"
    )


class WaitQuery(Query):
    wait: int = Field(0, ge=0, le=60, description="seconds to wait for an episode that is not ready")


class PredictQuery(WaitQuery):
    episode_id: str = Field(max_length=64)
    image: list[str] = Field(min_length=1, description="an image file in base64url; its padding may be left out")


class PageQuery(Query):
    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, pattern=r"^[0-9a-hjkmnp-z]{26}$", description="`next_cursor` of the previous page")


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name[:100]!r}; available: {', '.join(PRESETS)}")
    return name


# The playground reads this list from the OpenAPI document.
Preset = Annotated[str, AfterValidator(_known_preset), Field(json_schema_extra={"enum": list(PRESETS)})]


DATASET_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class TrainBody(Request):
    dataset: str = Field(
        pattern=DATASET_NAME,
        description=(
            "a folder in `<data directory>/datasets`, or a data set that `lamanas datasets add` stored: images in a "
            "folder per class, or Omniglot's layout"
        ),
    )
    preset: Preset = "serving"
    meta: Literal["reptile", "maml"] | None = None
    loss: Literal["cross_entropy", "fnn", "lstm"] | None = None
    residual: bool | None = None
    proxy: Literal["mse", "inner_product", "cosine"] | None = None
    meta_epochs: Annotated[int, Field(ge=1, le=100_000), WHOLE] | None = None
    ways: Annotated[int, Field(ge=2, le=100), WHOLE] | None = None
    shots: Annotated[int, Field(ge=1, le=50), WHOLE] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED), WHOLE] = 0
