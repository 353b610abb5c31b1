"""Looks a node over before it runs, while it runs, or when it does not: `examine` asks everything, and changes nothing.

Each module checks one thing through `Probes`, which is what the machine answers; `SystemProbes` asks the real one.
"""

from host.doctor.examination import examine
from host.doctor.finding import Finding, Level
from host.doctor.probes import Probes
from host.doctor.system import SystemProbes

__all__ = ["Finding", "Level", "Probes", "SystemProbes", "examine"]
