/** Single operators on typed arrays: by name (op, opAsync) or typed (fbp, afg, linear …); what there is (operators, backends, cpu). */
export type {
  AttributeRule,
  Attributes,
  AttributeValue,
  Backend,
  Device,
  DType,
  HostTensor,
  OperatorInfo,
  TensorDesc,
  TensorRule,
  TypedArray,
} from "../native/addon.ts";
export * from "./op.ts";
export * from "./typed.ts";
