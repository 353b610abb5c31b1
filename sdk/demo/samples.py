"""Requests for the demo and the benchmarks: a lot of iron ore, a bounty, and journals that were measured."""

import msgspec

from host.plugins import contract as c


def _q(value: float, sigma: float) -> c.Quantity:
    return c.Quantity(value=value, sigma=sigma)


LOT = c.AssessFeedstockRequest(
    assay=(
        c.Constituent(element="Fe", fraction=_q(0.32, 0.008)),
        c.Constituent(element="SiO2", fraction=_q(0.41, 0.01)),
        c.Constituent(element="P", fraction=_q(0.0009, 0.0001)),
    ),
    lot="heap 7",
    mass_kg=_q(25_000.0, 50.0),
    moisture=_q(0.08, 0.005),
    particles=c.Particles(d10_um=90.0, d50_um=2400.0, d80_um=9600.0),
    products=(
        c.Product(
            element="Fe",
            grade=0.64,
            impurities=(c.Impurity(element="P", fraction_max=0.0015),),
            name="iron concentrate",
            particle_um=96.0,
            recovery=_q(0.85, 0.02),
        ),
    ),
    work_index_kwh_t=_q(12.5, 0.6),
)
BID = c.BidRequest(
    bounty=c.Bounty(deadline_ms=7_200_000, id="haul-1", position_m=(30.0, 40.0), reward=60.0, work_ms=3_600_000),
    costs=c.Costs(fuel_unit=1.5, hour=12.0, wear=900.0),
    margin=0.2,
    node=c.BidderNode(fuel=40.0, fuel_per_hour=6.0, position_m=(0.0, 0.0), queue_ms=0, speed_m_s=0.5, wear=0.3, wear_per_hour=0.002),
)
PART = c.InspectPartRequest(
    characteristics=(
        c.Characteristic(
            feature="external",
            gauge_sigma_mm=0.0005,
            history_mm=(24.9871, 24.9853, 24.9862, 24.9848, 24.9859, 24.9866, 24.9857, 24.9852, 24.9863, 24.9868, 24.9855, 24.986),
            lower_mm=-0.02,
            mates=(
                c.Mate(
                    clearance_max_mm=0.041, clearance_min_mm=0.007, generation=2, lower_mm=25.0, mean_mm=25.0105, required=True, sigma_mm=0.003,
                    upper_mm=25.021,
                ),
            ),
            measured_mm=(24.9861, 24.9858, 24.9864, 24.9853),
            name="journal",
            nominal_mm=25.0,
            rework=True,
            subgroup=4,
            upper_mm=-0.007,
        ),
    ),
    cpk_min=1.33,
    generation=3,
    lot="journals 41",
    parts=4,
)  # fmt: skip
ASSAY = msgspec.json.encode(LOT)
BOUNTY = msgspec.json.encode(BID)
