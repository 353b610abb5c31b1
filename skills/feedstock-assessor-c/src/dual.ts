// Numbers that know how they depend on the measured inputs: forward-mode differentiation. A result's uncertainty is then, to first order
// and for inputs that are not correlated, the root of the sum of its squared partial derivatives times sigma (GUM, JCGM 100:2008, 5.1.2).

import { Quantity } from "snapcount";

/** A value and what each input's standard uncertainty adds to its own, signed. */
export class Dual {
  constructor(
    public value: f64,
    /** For mass, moisture, fraction, recovery and work index: the partial derivative times the input's sigma. */
    public shares: StaticArray<f64>,
  ) {}

  /** The input number `place`. */
  static measured(quantity: Quantity, place: i32): Dual {
    const shares = new StaticArray<f64>(INPUTS);
    shares[place] = quantity.sigma;
    return new Dual(quantity.value, shares);
  }

  static exact(value: f64): Dual {
    return new Dual(value, new StaticArray<f64>(INPUTS));
  }

  /** `a` times the shares of this, and `b` times those of another. */
  private mixed(value: f64, a: f64, other: Dual, b: f64): Dual {
    const shares = new StaticArray<f64>(INPUTS);
    for (let i = 0; i < INPUTS; i++) shares[i] = a * this.shares[i] + b * other.shares[i];
    return new Dual(value, shares);
  }

  plus(other: Dual): Dual {
    return this.mixed(this.value + other.value, 1, other, 1);
  }

  minus(other: Dual): Dual {
    return this.mixed(this.value - other.value, 1, other, -1);
  }

  times(other: Dual): Dual {
    return this.mixed(this.value * other.value, other.value, other, this.value);
  }

  over(other: Dual): Dual {
    const ratio = this.value / other.value;
    return this.mixed(ratio, 1 / other.value, other, -ratio / other.value);
  }

  /** The value with its standard uncertainty. */
  quantity(): Quantity {
    const quantity = new Quantity();
    quantity.value = this.value;
    for (let i = 0; i < INPUTS; i++) quantity.sigma = Math.hypot(quantity.sigma, this.shares[i]);
    return quantity;
  }
}

export const INPUTS = 5;
