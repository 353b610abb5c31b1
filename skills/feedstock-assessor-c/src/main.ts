// feedstock-assessor, lineage c: in AssemblyScript, from the formulas in the README.md of lineage a, with numerics of its own.

import {
  AssessFeedstockReply, AssessFeedstockRequest, ElementAssay, Product, Quantity, SelfTestReply, SelfTestRequest, fail, failed, number,
} from "snapcount";
import { admit, oddities } from "./admission";
import { Lot, measure } from "./model";
import { best, judge } from "./verdict";

export function assess_feedstock(request: AssessFeedstockRequest): AssessFeedstockReply {
  if (!admit(request)) return fail<AssessFeedstockReply>(admit.code, admit.message);
  const reply = new AssessFeedstockReply();
  return reply;
}
