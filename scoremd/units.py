"""Physical constants in the units of the package: nm, ps, kJ/mol, kelvin, dalton."""

#: Molar gas constant in kJ/mol/K (exact, SI 2019).
GAS_CONSTANT = 0.00831446261815324


def thermal_energy(temperature: float) -> float:
    """kT in kJ/mol at `temperature` in kelvin."""
    return GAS_CONSTANT * temperature
