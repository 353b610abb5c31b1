//! A skill in Rust: `export!` makes each function answer the hook of the same name.

use snapcount::{contract::*, export, fail, Failure};

export!(bid, self_test);

const MS_PER_HOUR: f64 = 3_600_000.0;

fn bid(request: BidRequest) -> Result<BidReply, Failure> {
    let BidRequest { bounty, costs, margin, node } = request;
    let cost = bounty.work_ms as f64 / MS_PER_HOUR * costs.hour;
    let price = cost * (1.0 + margin);
    if !cost.is_finite() || !price.is_finite() {
        return fail("out_of_range", "the cost or the price is beyond all numbers");
    }
    let finish_ms = node.queue_ms.saturating_add(bounty.work_ms);
    let no_bid = |reason: &str| BidReply { cost, id: bounty.id.clone(), reason: reason.to_string(), ..Default::default() };
    if finish_ms > bounty.deadline_ms {
        return Ok(no_bid("it would be done after the deadline"));
    }
    if price > bounty.reward {
        return Ok(no_bid("the reward does not cover the cost"));
    }
    Ok(BidReply { finish_ms, price: Some(price), ..no_bid("cost plus margin") })
}

fn self_test(_: SelfTestRequest) -> Result<SelfTestReply, Failure> {
    Ok(SelfTestReply { ok: true, detail: "nothing to prepare".to_string() })
}
