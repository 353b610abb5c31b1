//! What a request must fulfil before it is worth a calculation.

use std::collections::BTreeSet;

use snapcount::contract::{Characteristic, InspectPartRequest};
use snapcount::{fail, number, Failure};

use crate::interval::exceeds;

fn refuse(message: String) -> Result<(), Failure> {
    fail("bad_inspection", message)
}

pub fn admit(request: &InspectPartRequest) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for characteristic in &request.characteristics {
        let name = &characteristic.name;
        if !names.insert(name) {
            return refuse(format!("expected every characteristic once, got {} again", name));
        }
        let measured = characteristic.measured_mm.len() as u64;
        if measured > request.parts {
            return refuse(format!("expected up to {} measured parts of {}, which are the lot, got {}", request.parts, name, measured));
        }
        admit_limits(characteristic)?;
        admit_mates(characteristic)?;
    }
    Ok(())
}

fn admit_limits(characteristic: &Characteristic) -> Result<(), Failure> {
    let name = &characteristic.name;
    match (characteristic.lower_mm, characteristic.upper_mm) {
        (None, None) => refuse(format!("expected a limit for {}, got none", name)),
        (Some(lower), Some(upper)) if !exceeds(upper, lower) => {
            refuse(format!("expected limits of {} in order, got {} and {} mm", name, number(lower, 6), number(upper, 6)))
        }
        (Some(_), Some(_)) => Ok(()),
        _ if characteristic.mates.is_empty() => Ok(()),
        _ => refuse(format!("expected two limits for {}, because it has mates, got one", name)),
    }
}

fn admit_mates(characteristic: &Characteristic) -> Result<(), Failure> {
    let mut generations = BTreeSet::new();
    for mate in &characteristic.mates {
        if mate.lower_mm > mate.upper_mm || mate.clearance_min_mm > mate.clearance_max_mm {
            return refuse(format!("expected sizes and clearances of generation {} in order for {}", mate.generation, characteristic.name));
        }
        if !generations.insert(mate.generation) {
            return refuse(format!("expected every generation once for {}, got {} again", characteristic.name, mate.generation));
        }
    }
    Ok(())
}
