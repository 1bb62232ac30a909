//! A problem compiled and sized for a device.

pub(crate) mod cut;
pub(crate) mod error;
pub(crate) mod merge;
mod params;
mod piece;
mod pipeline;
pub(crate) mod scratch;
pub(crate) mod slices;
mod split;
mod stand_ins;
pub(crate) mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use wgpu::BufferUsages;

use crate::device::caps::Caps;
use crate::device::loss::is_lost;
use crate::kernel::error::PlanError;
use crate::kernel::params::Params;
use crate::kernel::record::Kernel;
use crate::kernel::select::{append_variants, block_mask_variant, candidates, weights_candidates};
use crate::kernel::select_gradients::gradient_variants;
use crate::kernel::slots::{Space, Usage};
use crate::kernel::variant::Variant;
use crate::problem::Problem;
use crate::problem::gradients::Gradients;
use crate::problem::layout::View;
use crate::problem::operand::Operand;
use cut::Job;
use error::ResizeError;
use params::params;
use pipeline::Pipeline;
use scratch::{Scratch, ScratchSize};
use slices::{Slice, sums};
use split::Split;
use stand_ins::StandIns;
use upload::filled;

/// Plans attention on one device, and keeps the pipelines that it has compiled. Clones share them.
#[derive(Clone, Debug)]
pub struct Attention {
    device: wgpu::Device,
    caps: Caps,
    cache: Option<wgpu::PipelineCache>,
    pipelines: Arc<Mutex<HashMap<Variant, Arc<OnceLock<Pipeline>>>>>,
}

/// A compiled and sized problem, which can be bound to buffers any number of times. Immutable; cheap to clone.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) attention: Attention,
    pub(crate) problem: Problem,
    variant: Variant,
    split: Split,
    pub(crate) need: ScratchSize,
    pub(crate) steps: Arc<[Step]>,
    pub(crate) operands: Arc<[Bound]>,
    /// `None` if every operand has elements.
    pub(crate) stand_ins: Option<StandIns>,
}

/// An operand that calls of a plan bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) view: View,
    pub(crate) usage: Usage,
}

/// One kernel, with a launch for each of its pieces.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) variant: Variant,
    pub(crate) kernel: Kernel,
    pub(crate) pipeline: Pipeline,
    pub(crate) params: wgpu::Buffer,
    pub(crate) launches: Vec<Launch>,
}

/// One dispatch.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) params_offset: u64,
    pub(crate) slices: Vec<Slice>,
    pub(crate) grid: [u32; 3],
}

/// The kernels that compute the output of `problem` by `variant`, in order, and how the keys are split.
fn forward(problem: &Problem, variant: &Variant, caps: &Caps) -> (Vec<Variant>, Split) {
    let split = Split::of(&variant.kernel(), problem, caps);
    let variant = if split.parts > 1 { variant.in_parts() } else { variant.clone() };
    let [before, after] = [variant.prepared_by(problem), variant.merged_by(problem)];
    ([before, Some(variant), after].into_iter().flatten().collect(), split)
}

/// Every kernel that a plan for `problem` by `variant` runs, in order, each with how the keys are split for it.
pub(crate) fn kernels(problem: &Problem, variant: &Variant, caps: &Caps) -> Result<Vec<(Variant, Split)>, PlanError> {
    let (forward, split) = forward(problem, variant, caps);
    let mut kernels: Vec<_> = forward.into_iter().map(|variant| (variant, split)).collect();
    if problem.view(Operand::Weights).is_some_and(|view| !view.is_empty()) {
        let weights = weights_candidates(problem, caps)?;
        // If possible, the weights kernel moves elements like `variant`, so that pinning a variant pins this for both
        // kernels.
        let same = weights.iter().find(|weights| weights.moves_elements_like(variant));
        let weights = same.unwrap_or(&weights[0]).clone();
        let split = Split::of(&weights.kernel(), problem, caps);
        kernels.push((weights, split));
    }
    Ok(kernels)
}

impl Attention {
    /// Plans for `device`, within the limits and features that it was created with. The faster kernels use some of
    /// [`Caps::FEATURES`].
    pub fn new(device: &wgpu::Device) -> Self {
        Self::with_caps(device, Caps::of(device))
    }

    /// Plans for `device`, within tighter limits than its own, or with a matrix unit. A unit whose features the device
    /// was not created with is ignored.
    pub fn with_caps(device: &wgpu::Device, mut caps: Caps) -> Self {
        caps.matrix_unit = caps.matrix_unit.filter(|unit| device.features().contains(unit.features()));
        // In a browser, this begins to listen for a loss, so that plans and calls notice it.
        is_lost(device);
        Self { device: device.clone(), caps, cache: None, pipelines: Arc::default() }
    }

    /// Compiles through `cache`, where the driver stores what it has compiled. If the driver has no cache of its own,
    /// as on Android, an app can thereby start without compiling again.
    ///
    /// The app owns the cache. It requests `Features::PIPELINE_CACHE` (Vulkan only) and creates the cache by
    /// `Device::create_pipeline_cache`, which is unsafe because it trusts the bytes that it is given. After planning,
    /// it writes what [`get_data`](wgpu::PipelineCache::get_data) returns to disk, under the name that
    /// `wgpu::util::pipeline_cache_key` gives for the adapter. Pipelines that were compiled before stay as they are.
    #[must_use]
    pub fn with_pipeline_cache(self, cache: wgpu::PipelineCache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// The device that it plans for.
    pub const fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The limits it plans within.
    pub const fn caps(&self) -> &Caps {
        &self.caps
    }

    /// The variants that can run `problem` here, best first.
    ///
    /// # Errors
    /// [`PlanError`] if there is none.
    pub fn candidates(&self, problem: &Problem) -> Result<Vec<Variant>, PlanError> {
        candidates(problem, &self.caps)
    }

    /// Compiles the kernels that `problem` needs, unless they are already compiled, and sizes their dispatches. The
    /// first use of a variant takes as long as the driver's compiler does.
    ///
    /// In a browser, compiling goes on after this returns: [`Plan::ready`] waits for its end.
    ///
    /// A plan uploads its parameters. wgpu holds such an upload, about 7 kB, until the queue's next submit.
    ///
    /// # Errors
    /// [`PlanError`] if this device cannot run the problem. It names the limit, what is needed and what is granted. It is
    /// [`PlanError::Refused`] if a kernel does not compile, with the message of the browser's or wgpu's compiler. If only the driver
    /// refuses it, a browser tells no reason. The next plan compiles it again. If the device is lost it is [`PlanError::DeviceLost`]; in a browser, once the page's event loop has turned since.
    pub fn plan(&self, problem: &Problem) -> Result<Plan, PlanError> {
        self.build(problem, &self.candidates(problem)?[0])
    }

    /// Plans `problem` like [`plan`](Self::plan), but with the given variant, for tests and tuning.
    ///
    /// # Errors
    /// [`PlanError::VariantMismatch`] unless `variant` is one of [`candidates`](Self::candidates).
    pub fn plan_variant(&self, problem: &Problem, variant: &Variant) -> Result<Plan, PlanError> {
        let able = self.candidates(problem)?;
        if !able.contains(variant) {
            return Err(PlanError::VariantMismatch { variant: variant.clone(), selected: able[0].clone() });
        }
        self.build(problem, variant)
    }

    /// The candidate whose `Display` is `name`. An app stores the name after a [tuning](crate::submitting::tune), and
    /// pins the candidate by [`plan_variant`](Self::plan_variant).
    ///
    /// # Errors
    /// [`PlanError::UnknownVariant`] if there is none, for example on another device or driver, or after an update.
    pub fn named(&self, problem: &Problem, name: &str) -> Result<Variant, PlanError> {
        let able = self.candidates(problem)?;
        let found = able.iter().find(|variant| variant.to_string() == name);
        found.cloned().ok_or_else(|| PlanError::UnknownVariant { name: name.to_owned(), selected: able[0].clone() })
    }

    /// Compiles and sizes the kernel that computes the [block mask](crate::BlockMask) of `problem` from its mask and
    /// its `mask_mod`, as a separate plan. Its calls write [`Operand::BlockMask`]. They read the mask, `aux` and, if
    /// the `mask_mod` uses the diagonal, the lengths; they ignore the problem's other operands. The block mask stays
    /// valid as long as these inputs do not change.
    ///
    /// # Errors
    /// As for [`plan`](Self::plan), and [`PlanError::NoBlockMask`] if the problem has none.
    pub fn plan_block_mask(&self, problem: &Problem) -> Result<Plan, PlanError> {
        self.build_alone(problem, &[block_mask_variant(problem, &self.caps)?])
    }

    /// Compiles and sizes the kernel that appends new keys and values to the cache of `problem`, as a separate plan: see
    /// [`Append`](crate::Append). Its calls read [`Operand::NewK`] and [`Operand::NewV`], and write [`Operand::K`] and
    /// [`Operand::V`] where the new keys lie. With a rotary embedding, they also write the rotated [`Operand::NewQ`] to
    /// [`Operand::Q`]. Record them before the attention, in the same pass. It takes one dispatch, or two on a device that
    /// binds too few buffers for a rotary embedding beside pages or lengths of queries.
    ///
    /// What has no place in the cache is not written. A sequence's lengths may say so only on the device; its attention
    /// then sees the keys that there is room for.
    ///
    /// # Errors
    /// As for [`plan`](Self::plan), and [`PlanError::NoAppend`] if the problem appends nothing.
    pub fn plan_append(&self, problem: &Problem) -> Result<Plan, PlanError> {
        self.build_alone(problem, &append_variants(problem, &self.caps)?)
    }

    /// Compiles and sizes the kernels that compute [`Gradients`](crate::Gradients), as a separate plan. Its calls read the
    /// inputs, [`Operand::Out`] and [`Operand::Lse`] of the forward pass, and the gradient of the output; they write the
    /// gradients of the inputs.
    ///
    /// # Errors
    /// As for [`plan`](Self::plan).
    pub fn plan_gradients(&self, gradients: &Gradients) -> Result<Plan, PlanError> {
        let problem = gradients.problem();
        self.build_alone(problem, &gradient_variants(problem, &self.caps)?)
    }

    /// A plan of these kernels, which binds only what they do. There is at least one.
    fn build_alone(&self, problem: &Problem, variants: &[Variant]) -> Result<Plan, PlanError> {
        let mut bound: Vec<Bound> = Vec::new();
        for slot in variants.iter().flat_map(|variant| variant.kernel().slots) {
            let view = slot.operand().and_then(|operand| problem.view(operand));
            if let Some(view) = view.filter(|view| bound.iter().all(|other| other.view != *view)) {
                bound.push(Bound { view, usage: slot.usage });
            }
        }
        let split = |variant: &Variant| Split::of(&variant.kernel(), problem, &self.caps);
        let kernels: Vec<_> = variants.iter().map(|variant| (variant.clone(), split(variant))).collect();
        self.assemble(problem, &variants[0], &kernels, bound.into())
    }

    fn build(&self, problem: &Problem, variant: &Variant) -> Result<Plan, PlanError> {
        let usage = |view: &View| Usage::of(view.operand, problem.sharing());
        let views = problem.views().filter(|view| !view.operand.is_appended());
        let bound = views.map(|view| Bound { view, usage: usage(&view) }).collect();
        self.assemble(problem, variant, &kernels(problem, variant, &self.caps)?, bound)
    }

    fn assemble(
        &self,
        problem: &Problem,
        variant: &Variant,
        kernels: &[(Variant, Split)],
        operands: Arc<[Bound]>,
    ) -> Result<Plan, PlanError> {
        let need = self.need(problem, kernels)?;
        let steps = kernels.iter().map(|(variant, split)| self.step(problem, variant, *split));
        let steps = steps.collect::<Result<Vec<Step>, PlanError>>()?;
        let lacks_elements = operands.iter().any(|bound| bound.view.is_empty());
        let stand_ins = lacks_elements.then(|| StandIns::new(&self.device, self.caps.binding_alignment));
        let split = Split::of(&variant.kernel(), problem, &self.caps);
        Ok(Plan {
            attention: self.clone(),
            stand_ins,
            problem: problem.clone(),
            variant: variant.clone(),
            split,
            need,
            steps: steps.into(),
            operands,
        })
    }

    /// The scratch that the kernels of a plan need.
    fn need(&self, problem: &Problem, kernels: &[(Variant, Split)]) -> Result<ScratchSize, PlanError> {
        let mut need = ScratchSize::default();
        for (variant, split) in kernels {
            if variant.kernel().binds(Space::Partial) {
                need.partial_bytes = split.view(problem).size_bytes();
            }
            if variant.kernel().binds(Space::Sums) {
                need.sums_bytes = sums(problem).size_bytes();
            }
            let (bytes, granted) = (need.partial_bytes.max(need.sums_bytes), self.caps.buffer_bytes);
            if bytes > granted {
                let (variant, limit) = (variant.clone(), "max_buffer_size");
                return Err(PlanError::Limit { variant, limit, need: bytes, granted });
            }
            let [keys, rows] = variant.staged_pairs(problem);
            need.staged_rows = need.staged_rows.or(rows);
            need.staged = need.staged.or(keys).or(variant.staged_texels(problem));
        }
        Ok(need)
    }

    fn step(&self, problem: &Problem, variant: &Variant, split: Split) -> Result<Step, PlanError> {
        let kernel = variant.kernel();
        let job = Job { problem, kernel: &kernel, split, caps: &self.caps };
        let pieces = job.cut()?;
        let sized = pieces.iter().map(|piece| {
            let slices: Vec<Slice> = job.slices(piece).collect();
            (params(&job, piece, &slices), slices, job.grid(piece))
        });
        self.launched(variant, &kernel, sized)
    }

    /// Compiles a kernel and uploads the parameters of its dispatches, each of which has slices and a grid.
    fn launched(
        &self,
        variant: &Variant,
        kernel: &Kernel,
        dispatches: impl ExactSizeIterator<Item = (Params, Vec<Slice>, [u32; 3])>,
    ) -> Result<Step, PlanError> {
        let stride = size_of::<Params>().next_multiple_of(self.caps.uniform_alignment.max(4) as usize);
        let (need, granted) = (dispatches.len() as u64 * stride as u64, self.caps.buffer_bytes);
        if need > granted {
            return Err(PlanError::Limit { variant: variant.clone(), limit: "max_buffer_size", need, granted });
        }
        let mut contents = Vec::new();
        let mut launches = Vec::new();
        for (params, slices, grid) in dispatches {
            contents.resize(launches.len() * stride, 0);
            launches.push(Launch { params_offset: contents.len() as u64, slices, grid });
            contents.extend_from_slice(bytemuck::bytes_of(&params));
        }
        let params = filled(&self.device, &format!("{variant} params"), contents, BufferUsages::UNIFORM);
        let params = params.ok_or(PlanError::DeviceLost)?;
        let pipeline = self.pipeline(variant, kernel)?;
        Ok(Step { variant: variant.clone(), kernel: kernel.clone(), pipeline, params, launches })
    }

    /// Threads that request the same variant share one compilation; different variants compile side by side.
    fn pipeline(&self, variant: &Variant, kernel: &Kernel) -> Result<Pipeline, PlanError> {
        let slot = self.pipelines().entry(variant.clone()).or_default().clone();
        let pipeline = slot.get_or_init(|| self.compile(variant, kernel, variant.wgsl())).clone();
        match pipeline.refusal_by_now() {
            None => Ok(pipeline),
            Some(reason) => Err(self.refused(variant, &pipeline, reason)),
        }
    }

    /// Waits until the kernels of a plan are compiled. They are compiled meanwhile, whichever is awaited first.
    async fn ready(&self, steps: &[Step]) -> Result<(), PlanError> {
        for Step { variant, pipeline, .. } in steps {
            if let Some(reason) = pipeline.refusal().await {
                return Err(self.refused(variant, pipeline, reason));
            }
        }
        // A browser pops the error scopes of a lost device without an error.
        if is_lost(&self.device) { Err(PlanError::DeviceLost) } else { Ok(()) }
    }

    /// Forgets a pipeline that was refused, so that the next plan compiles it again: memory may be free by then.
    fn refused(&self, variant: &Variant, refused: &Pipeline, reason: String) -> PlanError {
        let mut pipelines = self.pipelines();
        let kept = pipelines.get(variant).and_then(|slot| slot.get());
        if kept.is_some_and(|kept| kept.pipeline == refused.pipeline) {
            pipelines.remove(variant);
        }
        PlanError::Refused { variant: variant.clone(), reason }
    }

    /// Compiles `wgsl` for a variant instead of its own text, so that tests can plant a mistake and check that it is
    /// noticed.
    pub(crate) fn substitute(&self, variant: &Variant, wgsl: String) -> Option<String> {
        let pipeline = self.compile(variant, &variant.kernel(), wgsl);
        let refusal = pipeline.refusal_by_now();
        self.pipelines().insert(variant.clone(), Arc::new(OnceLock::from(pipeline)));
        refusal
    }

    fn compile(&self, variant: &Variant, kernel: &Kernel, wgsl: String) -> Pipeline {
        Pipeline::new(&self.device, self.cache.as_ref(), &variant.to_string(), kernel, wgsl)
    }

    fn pipelines(&self) -> MutexGuard<'_, HashMap<Variant, Arc<OnceLock<Pipeline>>>> {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// A plan for the same problem with other lengths. Layouts that the problem was given stay as they are; the others
    /// are contiguous for the new lengths. With as many queries as before, the variant is the same if it can run the
    /// longer or shorter keys; otherwise it is the one that [`Attention::plan`] prefers.
    ///
    /// This takes microseconds, because it uses the same pipelines. It compiles only what these lengths need and no plan
    /// of this [`Attention`] needed before: another variant, or kernels for keys that are now split over several
    /// workgroups.
    ///
    /// # Errors
    /// As for [`ProblemBuilder::build`](crate::ProblemBuilder::build) and [`Attention::plan`].
    pub fn resized(&self, len_q: u32, len_kv: u32) -> Result<Self, ResizeError> {
        let problem = self.problem.clone().to_builder().lengths(len_q, len_kv).build()?;
        if self.operands.iter().any(|bound| bound.view.operand == Operand::Dout) {
            return self
                .attention
                .build_alone(&problem, &gradient_variants(&problem, &self.attention.caps)?)
                .map_err(Into::into);
        }
        if self.operands.iter().any(|bound| bound.view.operand == Operand::NewK) {
            return Ok(self.attention.plan_append(&problem)?);
        }
        if self.operands.iter().any(|bound| bound.view.operand == Operand::BlockMask && bound.usage == Usage::Write) {
            return Ok(self.attention.plan_block_mask(&problem)?);
        }
        let able = self.attention.candidates(&problem)?;
        let same = able.iter().find(|&variant| *variant == self.variant && len_q == self.problem.shape().len_q);
        let variant = same.unwrap_or(&able[0]);
        Ok(self.attention.build(&problem, variant)?)
    }

    /// Waits until the device has compiled all kernels of this plan.
    ///
    /// Natively there is nothing to wait for: [`Attention::plan`] returns when they are compiled. In a browser it returns
    /// before, and a call that is submitted early waits on the device, where it may hold up the app's own commands. Plans
    /// that were made one after another compile while the page goes on:
    ///
    /// ```
    /// # use wgpu_attention::{Attention, PlanError, Problem};
    /// # async fn load(attention: &Attention, prefill: &Problem, decode: &Problem) -> Result<(), PlanError> {
    /// let (prefill, decode) = (attention.plan(prefill)?, attention.plan(decode)?);
    /// prefill.ready().await?;
    /// decode.ready().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`PlanError::Refused`] if a kernel does not compile: see [`Attention::plan`].
    /// [`PlanError::DeviceLost`] in a browser, if the device was lost meanwhile.
    ///
    /// An app that never waits loses no error: calls of a plan whose kernel was refused are validation errors of wgpu, and the
    /// next plan that needs the kernel returns the message.
    pub async fn ready(&self) -> Result<(), PlanError> {
        self.attention.ready(&self.steps).await
    }

    /// The problem that was planned.
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The variant that computes the output or the block mask; of gradients, the first one that runs.
    pub const fn variant(&self) -> &Variant {
        &self.variant
    }

    /// Every variant a call runs, in order.
    pub fn variants(&self) -> impl Iterator<Item = &Variant> {
        self.steps.iter().map(|step| &step.variant)
    }

    /// How many dispatches a call records.
    pub fn dispatches(&self) -> usize {
        self.steps.iter().map(|step| step.launches.len()).sum()
    }

    /// The number of workgroups that share the keys of a row. If there are several, their results are merged.
    pub fn parts(&self) -> u32 {
        self.split.parts
    }

    /// Device memory that a call needs besides its operands and the plan's parameters, in bytes. It grows with the
    /// lengths, never with their product.
    pub fn scratch_bytes(&self) -> u64 {
        self.need.bytes()
    }

    /// Allocates the memory of [`scratch_bytes`](Self::scratch_bytes), for [`bind_in`](Self::bind_in). Calls that run
    /// one after another may share it.
    pub fn scratch(&self) -> Scratch {
        Scratch::new(self.attention.device(), self.need)
    }
}
