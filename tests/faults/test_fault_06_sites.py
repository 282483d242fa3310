"""Row 6: a site this architecture lacks is refused at attach, listing what it has."""

from __future__ import annotations

import pytest

from lm_eval_steer.attachment import attach
from lm_eval_steer.errors import SiteError
from lm_eval_steer.hookpoint import Site, parse_site
from tests.conftest import random_vector
from tests.steered import make_plan
from tests.tiny_models import WIDTH, build


def test_mamba_has_no_mlp() -> None:
    plan = make_plan(random_vector(WIDTH, 4), site=Site.MLP_OUT)
    with pytest.raises(
        SiteError, match=r"no site mlp_out: no single MLP output.*It has: attn_out, block_in, block_out"
    ):
        attach(build("mamba"), plan)


def test_an_unknown_site_lists_the_known_ones() -> None:
    with pytest.raises(SiteError, match=r"unknown site 'block_ou'. Did you mean 'block_out'\? Allowed: attn_out, "):
        parse_site("block_ou")
