"""Lines of tegrastats as boards print them."""

from __future__ import annotations

import pytest

from depthbench.suites.targets.tegrastats import clocks_dropped, mean_power_mw, parse

NANO = (
    "RAM 1923/3964MB (lfb 2x2MB) SWAP 191/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) CPU [5%@1224,4%@1224,3%@1224,6%@1224]"
    " EMC_FREQ 0%@1600 GR3D_FREQ 99%@921 APE 25 PLL@37C CPU@40C PMIC@50C GPU@40C AO@45C thermal@40C POM_5V_IN 1750/1628"
    " POM_5V_GPU 0/0 POM_5V_CPU 366/406"
)
AGX_XAVIER = (
    "RAM 2345/31919MB (lfb 6943x4MB) SWAP 0/15959MB (cached 0MB) CPU [1%@1190,0%@1190] EMC_FREQ 0% GR3D_FREQ 60% VIC_FREQ 601"
    " APE 150 MTS fg 0% bg 0% AO@36.5C GPU@36.5C Tdiode@39.25C GPU 309/309 CPU 310/309 SOC 928/928 CV 0/0 VDDRQ 154/154"
    " SYS5V 1658/1658"
)
ORIN = (
    "11-22-2024 10:00:00 RAM 2345/7620MB (lfb 4x4MB) SWAP 0/3810MB (cached 0MB) CPU [1%@729,0%@729] EMC_FREQ 0%@2133"
    " GR3D_FREQ 98%@[624] NVDEC off VIC off OFA off APE 200 cpu@45.187C soc2@44.6C tj@46.2C VDD_IN 4970mW/4970mW"
    " VDD_CPU_GPU_CV 505mW/505mW VDD_SOC 1466mW/1466mW"
)


def test_nano() -> None:
    [sample] = parse(NANO)
    assert (sample.gpu_load, sample.gpu_mhz, sample.ram_mb, sample.power_mw) == (99, 921, 1923, 1750)
    assert sample.emc_mhz == 1600
    assert sample.rails_mw == {"POM_5V_IN": 1750, "POM_5V_GPU": 0, "POM_5V_CPU": 366}
    assert sample.temperatures == {"PLL": 37, "CPU": 40, "PMIC": 50, "GPU": 40, "AO": 45, "thermal": 40}


def test_agx_xavier_has_no_board_rail_and_no_clock_without_root() -> None:
    [sample] = parse(AGX_XAVIER)
    assert (sample.gpu_load, sample.gpu_mhz, sample.emc_mhz) == (60, None, None)
    assert sample.power_mw == 309 + 310 + 928 + 154 + 1658


def test_orin() -> None:
    [sample] = parse(ORIN)
    assert (sample.gpu_mhz, sample.power_mw, sample.temperatures["tj"]) == (624, 4970, 46.2)


def test_what_is_no_sample_is_left_out() -> None:
    assert parse(f"tegrastats: warning\n{ORIN[:60]}\n") == []
    assert mean_power_mw([]) is None


def test_clocks_that_dropped_while_busy() -> None:
    idle = NANO.replace("99%@921", "0%@76")
    low = NANO.replace("@921", "@614")
    assert clocks_dropped(parse("\n".join([idle, NANO, NANO, idle]))) is None
    assert clocks_dropped(parse("\n".join([idle, NANO, low]))) == (614, 921)
    assert clocks_dropped(parse(low)) is None
    assert clocks_dropped(parse(low), 921.6) == (614, 921.6)  # low from the first sample on
    assert mean_power_mw(parse(NANO)) == pytest.approx(1750)
