// A module has no start function (docs/abi.md): what initialises its globals runs at the first call into it, under that call's limits.
// The compiler gives the function a guard, so that later calls pass it by.
export default class {
  afterCompile(module) {
    const { binaryen } = this;
    for (let index = 0; index < module.getNumExports(); index++) {
      const { kind, name, value } = binaryen.getExportInfo(module.getExportByIndex(index));
      if (kind !== binaryen.ExternalFunction || name === "start") continue;
      const exported = binaryen.Function(module.getFunction(value));
      exported.body = module.block(null, [module.call("~start", [], binaryen.none), exported.body], exported.results);
    }
    module.removeExport("start");
  }
}
