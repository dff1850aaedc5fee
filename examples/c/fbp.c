/* Factorized bilinear pooling of two small vectors: the specification's golden values, in C. */
#include <affuse/affuse.h>
#include <math.h>
#include <stdio.h>

static int fail(const char* what, const affuse_error* error) {
  fprintf(stderr, "%s: %s: %s\n", what, error->code, error->message);
  return 1;
}

int main(void) {
  affuse_error error;
  affuse_operator fbp;
  if (affuse_abi_version() != AFFUSE_ABI_VERSION) {
    fprintf(stderr, "the library's ABI is %d, the header's %d\n", affuse_abi_version(), AFFUSE_ABI_VERSION);
    return 1;
  }
  printf("affuse %s, %d operators, %s, %d threads\n", affuse_version(), affuse_operator_count(), affuse_cpu_level(),
         affuse_threads());
  if (affuse_operator_find("fbp", &fbp, &error)) return fail("affuse_operator_find", &error);
  printf("%s: %s\n", fbp.name, fbp.summary);

  float a[] = {1, 2}, v[] = {3, -1};
  float U[] = {1, 0, 0, 1, 1, 1, 1, -1}, V[] = {1, 1, 1, -1, 0, 1, 2, 0};
  float z[2], s[2];
  const affuse_tensor inputs[] = {
      affuse_tensor_f32(a, 2, (const int64_t[]){1, 2}), /* [B,m] */
      affuse_tensor_f32(v, 2, (const int64_t[]){1, 2}), /* [B,n] */
      affuse_tensor_f32(U, 2, (const int64_t[]){4, 2}), /* [o*k,m] */
      affuse_tensor_f32(V, 2, (const int64_t[]){4, 2}), /* [o*k,n] */
  };
  const affuse_tensor outputs[] = {
      affuse_tensor_f32(z, 2, (const int64_t[]){1, 2}), /* [B,o] */
      affuse_tensor_f32(s, 2, (const int64_t[]){1, 2}), /* [B,o] */
  };
  const affuse_attribute attributes[] = {{"k", "2"}};
  if (affuse_run("fbp", "cpu", inputs, 4, attributes, 1, outputs, 2, 0, &error)) return fail("affuse_run", &error);
  printf("z = %.7f %.7f\ns = %g %g\n", z[0], z[1], s[0], s[1]);
  if (fabs(z[0] - 0.72547625) > 1e-6 || fabs(z[1] + 0.68824720) > 1e-6) {
    fprintf(stderr, "expected z = 0.7254763 -0.6882472\n");
    return 1;
  }

  /* Errors are values: this one says which tensor, what was expected and what came. */
  affuse_tensor wrong[] = {inputs[0], inputs[1], inputs[2], inputs[3]};
  wrong[3].dim[1] = 3;
  if (affuse_run("fbp", "cpu", wrong, 4, attributes, 1, outputs, 2, 0, &error) == 0) return 1;
  printf("%s: %s\n", error.code, error.message);
  affuse_shutdown();
  return 0;
}
